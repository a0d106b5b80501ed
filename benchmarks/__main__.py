"""`make bench`: every measurement, one table, and the numbers as JSON beside it."""

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import datapath, doctor, flops, index, masks, resume, startup, step
from simmim.engine.bar import bar
from simmim.files import write_text_atomically
from simmim.report import print_table

_Row = tuple[str, str, str]


class _Part(NamedTuple):
    """One measurement and how the table says it."""

    measure: Callable[[], Any]
    rows: Callable[[Any], Iterable[_Row]]


def _of_images(found: Mapping[str, Any]) -> Iterable[_Row]:
    for size, each in found.items():
        beside = (
            f"{each['ratio']:.2f} x the official recipe; {each['worker_ratio']:.2f} where a GPU normalises; "
            f"{each['pillow_ratio']:.2f} with Pillow alone"
        )
        yield f"images read, {size} JPEG", f"{each['ours']:.0f}/s", beside


def _of_index(found: Mapping[str, Any]) -> Iterable[_Row]:
    yield "files indexed, first time", f"{found['first_files_per_second']:.0f}/s", f"of {found['files']} files"
    yield "files indexed, again", f"{found['again_files_per_second']:.0f}/s", "from the kept index"


def _of_doctor(found: Mapping[str, Any]) -> Iterable[_Row]:
    yield "simmim doctor", f"{found['seconds']:.0f} s", f"{found['files']} files, {found['looked_at']} looked at"


def _of_startup(found: Mapping[str, Any]) -> Iterable[_Row]:
    yield "simmim --help", f"{found['help_seconds']:.2f} s", f"an empty Python: {found['python_seconds']:.2f} s"


def _of_resume(found: Mapping[str, Any]) -> Iterable[_Row]:
    beside = f"{found['ratio']:.2f} x a new run's {found['fresh_seconds']:.2f} s to its first step"
    yield "going on with a run that was cut", f"{found['resumed_seconds']:.2f} s to its next step", beside


def _of_masks(found: Mapping[str, Any]) -> Iterable[_Row]:
    for name, each in found.items():
        yield f"masks drawn, {name}", f"{each['ours_per_second']:.0f}/s", f"{each['ratio']:.1f} x the loop over images"


def _of_flops(found: Mapping[str, Any]) -> Iterable[_Row]:
    for name, numbers in found.items():
        yield f"a step's cost, {name}", *flops.words(numbers)


def _of_steps(where: str, found: Mapping[str, Any]) -> Iterable[_Row]:
    for name, contestants in found.items():
        for who, numbers in contestants.items():
            yield f"{name}{where}: {who}", *step.words(numbers)


def _of_memory(found: Mapping[str, Any]) -> Iterable[_Row]:
    for name, contestants in found.items():
        for who, numbers in contestants.items():
            if numbers is None:
                yield f"{name}, peak memory: {who}", "not installed", ""
                continue
            beside = (
                f"{numbers['ratio']:.2f} x the leanest dense peer's" if "ratio" in numbers else "no peer is installed"
            )
            yield f"{name}, peak memory: {who}", f"{numbers['peak_mb']:.0f} MB, {step.MANY} images", beside


_PARTS: dict[str, _Part] = {
    "images": _Part(datapath.measure, _of_images),
    "index": _Part(index.measure, _of_index),
    "doctor": _Part(doctor.measure, _of_doctor),
    "startup": _Part(startup.measure, _of_startup),
    "resume": _Part(resume.measure, _of_resume),
    "masks": _Part(masks.measure, _of_masks),
    "flops": _Part(flops.measure, _of_flops),
    "steps": _Part(step.measure, partial(_of_steps, "")),
    "memory": _Part(step.memory, _of_memory),
}
if torch.cuda.is_available():
    on_gpu = partial(step.measure, device="cuda", batch=64, rounds=20)
    _PARTS["gpu"] = _Part(on_gpu, partial(_of_steps, " on the GPU, bf16"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"), help="where the numbers are written")
    parser.add_argument("--only", nargs="+", choices=list(_PARTS), default=list(_PARTS), help="these parts alone")
    given = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    numbers: dict[str, Any] = {"machine": machine}
    rows: list[_Row] = []
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with bar("measuring", total=len(given.only)) as advance:
        for name in given.only:
            numbers[name] = _PARTS[name].measure()
            rows += _PARTS[name].rows(numbers[name])
            write_text_atomically(given.out, json.dumps(numbers, indent=2) + "\n")  # what is measured is not lost
            advance(1)
    print_table(("what", "measured", "beside"), rows, title=machine)
    print(f"numbers: {given.out}")


main()
