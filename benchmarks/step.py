"""A whole training step beside the peers': forward, backward, clip, AdamW, on one batch of noise, interleaved."""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contestants import SIZES, SWIN, VIT, Where, contestants, is_dense_peer, make_masks, our_model
from benchmarks.limit import products_per_second

MANY = 32
"""Images of a step whose memory is measured."""
_MEASURED_FOR_MEMORY = ("simmim", "simmim, checkpointing", "Hugging Face", "lightly")
_AT_A_TIME = 3


def measure(
    *, rounds: int = 5, batch: int = 4, threads: int = 1, names: tuple[str, ...] = (SWIN, VIT), device: str = "cpu"
) -> dict[str, Any]:
    """Steps of all contestants in turn, each in a process of its own.

    Returns:
        By network and contestant: seconds a step (median; processor time on a CPU), `ratio` to the fastest dense peer of
        the same round (median, and from-to), images a second of wall time, peak memory of a step in MB, weights and
        optimizer included. For our dense step `of_limit` is its share of what this machine multiplies. A peer that is not
        installed is None.
    """
    return {
        name: _contest(
            name, rounds=rounds, batch=batch, threads=threads, device=device, among=contestants(name, device)
        )
        for name in names
    }


def memory(*, batch: int = MANY, names: tuple[str, ...] = (SWIN, VIT)) -> dict[str, Any]:
    """Peak memory of a step on a CPU, with a batch at which the activations outweigh the weights.

    Returns:
        By network and contestant: `peak_mb`, and its `ratio` to the leanest dense peer's. A peer that is not installed is None.
    """
    found: dict[str, Any] = {}
    for name in names:
        chosen = [who for who in contestants(name, "cpu") if who in _MEASURED_FOR_MEMORY]
        numbers = {
            who: _sit(name, [who], rounds=1, batch=batch, threads=torch.get_num_threads(), device="cpu").get(who)
            for who in chosen
        }
        peers = [each["peak_mb"] for who, each in numbers.items() if each and is_dense_peer(who)]
        found[name] = {
            who: each and {"peak_mb": each["peak_mb"], **({"ratio": each["peak_mb"] / min(peers)} if peers else {})}
            for who, each in numbers.items()
        }
    return found


def words(numbers: Mapping[str, float] | None) -> tuple[str, str]:
    """A contestant's numbers for the table."""
    if numbers is None:
        return "not installed", ""
    measured = f"{numbers['seconds']:.2f} s a step, {numbers['peak_mb']:.0f} MB"
    if "ratio" not in numbers:
        return measured, "no peer is installed"
    beside = f"{numbers['ratio']:.2f} x the fastest dense peer ({numbers['from']:.2f} to {numbers['to']:.2f})"
    return measured, beside + (f", {numbers['of_limit']:.0%} of the limit" if "of_limit" in numbers else "")


def flops_an_image(name: str) -> float:
    """Of our dense training step, counted by PyTorch without computing anything."""
    with torch.device("meta"):
        model = our_model(name)
        images = torch.empty(1, 3, SIZES[name], SIZES[name])
    mask = make_masks(torch.empty(1, 3, SIZES[name], SIZES[name]), model.encoder.patch_size).to("meta")
    with FlopCounterMode(display=False) as counter:
        model(images, mask).loss.backward()
    return float(counter.get_total_flops())


def _contest(
    name: str, *, rounds: int, batch: int, threads: int, device: str, among: Sequence[str]
) -> dict[str, dict[str, float] | None]:
    """A few at a time, for the memory of all is more than a laptop has; the dense peers take part every time."""
    peers, others = ([who for who in among if is_dense_peer(who) == peer] for peer in (True, False))
    found: dict[str, dict[str, float] | None] = {}
    for first in range(0, len(others), _AT_A_TIME):
        sitting = [*others[first : first + _AT_A_TIME], *peers]
        numbers = _sit(name, sitting, rounds=rounds, batch=batch, threads=threads, device=device)
        found = {who: numbers.get(who) for who in sitting} | found
    ours = found.get("simmim")
    if ours:
        rate = products_per_second(device=device, threads=threads)
        ours["of_limit"] = ours["images_per_second"] * flops_an_image(name) / rate
    return {who: found[who] for who in among}


def _sit(
    name: str, who_sits: Sequence[str], *, rounds: int, batch: int, threads: int, device: str
) -> dict[str, dict[str, float]]:
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    for who in who_sits:
        ours, theirs = context.Pipe()
        context.Process(target=_take_part, args=(theirs, name, who, batch, threads, device), daemon=True).start()
        theirs.close()  # so that its death is heard
        if ours.recv():
            ends[who] = ours
    seconds: dict[str, list[tuple[float, float]]] = {who: [] for who in ends}
    warming = 1 if device == "cpu" else 5
    for round_ in range(rounds + warming):
        for who, end in ends.items():
            end.send("step")
            times = end.recv()
            if round_ >= warming:
                seconds[who].append(times)
    peaks: dict[str, float] = {}
    for who, end in ends.items():
        end.send("end")
        peaks[who] = end.recv()
    return _compare(seconds, peaks, batch=batch)


def _compare(
    seconds: Mapping[str, list[tuple[float, float]]], peaks: Mapping[str, float], *, batch: int
) -> dict[str, dict[str, float]]:
    dense = [[each[0] for each in times] for who, times in seconds.items() if is_dense_peer(who)]
    found: dict[str, dict[str, float]] = {}
    for who, times in seconds.items():
        own, wall = zip(*times, strict=True)
        found[who] = {
            "seconds": statistics.median(own),
            "images_per_second": batch / statistics.median(wall),
            "peak_mb": peaks[who],
        }
        if dense:
            ratios = [min(peer[number] for peer in dense) / one for number, one in enumerate(own)]
            found[who] |= {"ratio": statistics.median(ratios), "from": min(ratios), "to": max(ratios)}
    return found


def _take_part(end: Connection, name: str, who: str, batch: int, threads: int, device: str) -> None:
    """One contestant: makes its model, then a step whenever it is told to."""
    torch.set_num_threads(threads)
    size, where = SIZES[name], Where(device)
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        step = contestants(name, device)[who](images, where)
    except ImportError:  # a peer that is not installed stands in the table as such
        end.send(False)
        return
    end.send(True)
    while end.recv() == "step":
        cpu, wall = time.process_time(), time.perf_counter()
        step()
        where.finished()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        end.send((cpu if device == "cpu" else wall, wall))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    end.send(peak / 1024 if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=None, help="4 if not given, and 32 for memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", choices=[SWIN, VIT], default=None)
    parser.add_argument("--memory", action="store_true", help="peak memory alone")
    given = parser.parse_args()
    names = (given.only,) if given.only else (SWIN, VIT)
    if given.memory:
        print(json.dumps(memory(batch=given.batch or MANY, names=names), indent=2))
        return
    found = measure(
        rounds=given.rounds, batch=given.batch or 4, threads=given.threads, names=names, device=given.device
    )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
