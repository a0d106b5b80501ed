"""Published learning rate schedules, by optimizer step t counted from 0."""

import math


def warmup(t: int, *, steps: int, start: float, peak: float) -> float:
    """A straight line."""
    return start + t * (peak - start) / steps


def cosine(t: int, *, total: int, peak: float, floor: float) -> float:
    """SGDR's cosine, as in timm's CosineLRScheduler: half a wave over `total` steps."""
    return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * t / total))


def multistep(t: int, *, milestones: list[int], peak: float, factor: float) -> float:
    """A factor for every milestone that was reached."""
    return peak * math.prod(factor for milestone in milestones if t >= milestone)
