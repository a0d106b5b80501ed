"""What PyTorch itself says of the memory of a step."""

from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_bytes(step: Any) -> int:
    """The most that PyTorch's allocator had given out at a time, by its profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        step()
    assert watched.profiler is not None
    assert watched.profiler.kineto_results is not None
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
