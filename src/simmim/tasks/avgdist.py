"""The planner: which masks hide pixels at a good distance, before anything is trained."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from pydantic import TypeAdapter, ValidationError

from simmim.config import nearest
from simmim.files import write_atomically
from simmim.masking import BlockMasking, Masking, RandomMasking, SquareMasking, average_distance
from simmim.report import print_table
from simmim.seeds import seed_of
from simmim.units import ImageSize, Size

STRATEGIES = {"random": RandomMasking, "square": SquareMasking, "block": BlockMasking}

_PATCHES = {"random": (4, 8, 16, 32, 64), "square": (32,), "block": (16, 32)}
_RATIOS = tuple(step / 10 for step in range(1, 10))
_BAND_AT_192 = (10.0, 20.0)
_CELLS_A_SETTING = 24_000  # few masks where each has many cells, many where each has few: the means are equally sure
_MANY_CELLS = 10_000  # the same for grids of so many cells that each mask takes long
_FEWEST_MASKS, _MOST_MASKS = 4, 600


class Band(NamedTuple):
    """The distances at which the paper's runs did best, in pixels."""

    low: float
    high: float


class Setting(NamedTuple):
    """AvgDist of one setting."""

    strategy: str
    mask_patch: int
    ratio: float
    avgdist: float
    """Pixels, averaged over masks drawn with a fixed seed."""
    in_band: bool


class Plan(NamedTuple):
    """All settings that an image size allows."""

    image_size: Size
    band: Band
    settings: list[Setting]
    advice: list[Setting]
    """Settings in the band, the best first."""


def good_band(image_size: Size) -> Band:
    """10 to 20 px at 192 px (paper, section 4.1.2), scaled in proportion to the side of an image of another size.

    The scaling is an assumption: the paper has this figure for 192 px only.
    """
    scale = math.sqrt(image_size[0] * image_size[1]) / 192
    return Band(_BAND_AT_192[0] * scale, _BAND_AT_192[1] * scale)


def read_image_size(text: str) -> Size:
    """An image size as a person writes it: 192, "192 px" or 96x160.

    Raises:
        ValueError: where it is none.
    """
    try:
        return TypeAdapter[Size](ImageSize).validate_python(text)
    except ValidationError as error:
        raise ValueError(f"--image-size {text!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def measure_setting(image_size: Size, *, strategy: str = "random", mask_patch: int = 32, ratio: float = 0.6) -> Setting:
    """AvgDist of one setting.

    Raises:
        ValueError: where the strategy is unknown, or the sizes do not fit.
    """
    if strategy not in STRATEGIES:
        hint = nearest(strategy, list(STRATEGIES))
        raise ValueError(f"there is no strategy {strategy!r}; allowed: {', '.join(STRATEGIES)}{hint}")
    try:
        masking = STRATEGIES[strategy](ratio=ratio, mask_patch=mask_patch)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"{problem['loc'][0]} = {problem['input']!r}: {problem['msg']}") from None
    distance = average_of(masking, image_size, mask_patch)
    band = good_band(image_size)
    return Setting(strategy, mask_patch, ratio, distance, band.low <= distance <= band.high)


def average_of(masking: Masking, image_size: Size, mask_patch: int) -> float:
    """AvgDist in pixels, over so many masks of a fixed seed that cells of any size are equally sure."""
    cells = max(image_size[0] * image_size[1] // mask_patch**2, 1)
    budget = _MANY_CELLS if cells > 64 else _CELLS_A_SETTING
    batch = min(max(budget // cells, _FEWEST_MASKS), _MOST_MASKS)
    generator = torch.Generator().manual_seed(seed_of(0, "avgdist"))
    mask = masking(batch, image_size=image_size, patch_size=mask_patch, generator=generator)
    return average_distance(mask, patch_size=mask_patch)


def plan_masks(image_size: Size) -> Plan:
    """All strategies, mask patches and ratios that an image size allows.

    Raises:
        ValueError: where no mask patch fits the image.
    """
    settings = list(_possible(image_size))
    if not settings:
        raise ValueError(
            f"no mask patch of 4 to 64 px divides an image of {image_size[0]}x{image_size[1]} px; sizes that are multiples "
            "of 32 px, such as 192 or 224, have a choice"
        )
    # The paper's own choice is random masks of 32 px at 0.6: of what lies in the band, the nearest to it comes first.
    inside = [setting for setting in settings if setting.in_band and setting.strategy == "random"]
    width = {patch: sum(setting.mask_patch == patch for setting in inside) for patch in _PATCHES["random"]}
    advice = sorted(inside, key=lambda setting: (-width[setting.mask_patch], abs(setting.ratio - 0.6)))
    return Plan(image_size, good_band(image_size), settings, advice)


def _possible(image_size: Size) -> Iterator[Setting]:
    for strategy, patches in _PATCHES.items():
        for mask_patch, ratio in itertools.product(patches, _RATIOS):
            if any(side % mask_patch for side in image_size):
                continue
            try:
                yield measure_setting(image_size, strategy=strategy, mask_patch=mask_patch, ratio=ratio)
            except ValueError:
                continue  # it would hide everything, or the square is larger than the image


def tell_plan(plan: Plan) -> None:
    """The plan as a table, and what it advises."""
    ratios = sorted({setting.ratio for setting in plan.settings})
    rows: list[list[str]] = []
    for (strategy, patch), group in itertools.groupby(plan.settings, key=lambda s: (s.strategy, s.mask_patch)):
        by_ratio = {setting.ratio: setting for setting in group}
        rows.append([f"{strategy} {patch} px", *(_shown(by_ratio.get(ratio)) for ratio in ratios)])
    height, width = plan.image_size
    print_table(("px by ratio", *(f"{ratio:g}" for ratio in ratios)), rows, title=f"{height}x{width} px")
    print(
        f"* in the good band, {plan.band.low:.1f} to {plan.band.high:.1f} px: the paper's 10 to 20 px at 192 px"
        + ("." if plan.image_size == (192, 192) else ", scaled with the image's side, which is an assumption.")
    )
    if plan.advice:
        best = plan.advice[0]
        print(f"Advised: masking.kind=random masking.mask_patch='{best.mask_patch} px' masking.ratio={best.ratio:g}")
    else:
        print("No random mask of this image size lies in the band; take the row that comes nearest.")


def _shown(setting: Setting | None) -> str:
    return "" if setting is None else f"{setting.avgdist:.1f}{'*' if setting.in_band else ''}"


def draw_plan(plan: Plan, path: Path) -> None:
    """AvgDist over the ratio, a line for each strategy and patch, with the good band (the paper's figure 3a)."""
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        axes.axhspan(plan.band.low, plan.band.high, color="tab:green", alpha=0.15, label="good band")
        styles = {"random": "o-", "square": "s--", "block": "^:"}
        for (strategy, patch), group in itertools.groupby(plan.settings, key=lambda s: (s.strategy, s.mask_patch)):
            line = list(group)
            axes.plot(
                [s.ratio for s in line], [s.avgdist for s in line], styles[strategy], label=f"{strategy} {patch} px"
            )
        axes.set_yscale("log")
        axes.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
        axes.set_xlabel("mask ratio")
        axes.set_ylabel("AvgDist, px")
        axes.set_title(f"From a hidden pixel to the nearest visible one, {plan.image_size[0]}x{plan.image_size[1]} px")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        write_atomically(path, lambda part: figure.savefig(part, format="png", dpi=120))
