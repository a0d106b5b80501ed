"""What becomes of a run one of whose processes is lost: one sentence that names it, in place of a traceback in each."""

import time

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from simmim.engine.distributed import SAID_BY_MAIN, Processes
from simmim.engine.folder import RunError

_WORDS = ("gloo", "Gloo", "NCCL", "by peer", "Timed out waiting", "timeout caused pair closure", "Broken pipe")
_GATHERING_SECONDS = 5.0


def is_of_a_lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process could not be reached."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)
    )


def name_the_lost(processes: Processes) -> RunError:
    """Leave the group, so that all others notice, see who is still there, and say who is not.

    The first of those that are left says it; the others keep quiet.
    """
    assert processes.store is not None, "a process that is alone loses nobody"
    dist.destroy_process_group()
    try:
        there = _muster(processes.store, rank=processes.rank, world=processes.world)
    except (dist.DistError, RuntimeError):  # the process that kept the words is the lost one
        there = set(range(1, processes.world))
    lost = sorted(set(range(processes.world)) - there)
    who = f"process {lost[0]}" if len(lost) == 1 else f"processes {', '.join(map(str, lost))}"
    error = RunError(
        f"{who} of {processes.world} no longer answer{'s' if len(lost) == 1 else ''}, so the run ended; what was saved is "
        "whole. Give the same command with --resume; torchrun --max-restarts 3 does it by itself"
        if lost
        else f"the {processes.world} processes lost touch with each other, so the run ended; what was saved is whole. Give the "
        "same command with --resume; if a process only was slow, with a larger machine.patience_minutes"
    )
    if processes.rank != min(there):
        error.add_note(SAID_BY_MAIN)
    return error


def _muster(store: Store, *, rank: int, world: int) -> set[int]:
    """The processes that are still there."""
    store.set(f"here/{rank}", "yes")
    end = time.monotonic() + _GATHERING_SECONDS
    there = {rank}
    while time.monotonic() < end and len(there) < world:
        time.sleep(0.1)
        there |= {other for other in range(world) if store.check([f"here/{other}"])}
    return there
