"""`make bench`: every measurement, one table, and the numbers as JSON beside it."""

import argparse
import json
import os
import platform
from pathlib import Path

import torch

from benchmarks import datapath, doctor, flops, index, masks, startup, step
from simmim.report import print_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"))
    out = parser.parse_args().out
    images = datapath.measure()
    folder = index.measure()
    examined = doctor.measure()
    start = startup.measure()
    drawn = masks.measure()
    costs = flops.measure()
    steps = step.measure()
    peaks = step.memory()
    on_gpu = step.measure(device="cuda", batch=64, rounds=20) if torch.cuda.is_available() else {}
    rows = [
        (
            f"images read, {size} JPEG",
            f"{each['ours']:.0f}/s",
            f"{each['ratio']:.2f} x the official recipe; with Pillow {each['pillow_ratio']:.2f}",
        )
        for size, each in images.items()
    ]
    rows += [
        ("files indexed, first time", f"{folder['first_files_per_second']:.0f}/s", f"of {folder['files']} files"),
        ("files indexed, again", f"{folder['again_files_per_second']:.0f}/s", "from the kept index"),
        (
            "simmim doctor",
            f"{examined['seconds']:.0f} s",
            f"{examined['files']} files, {examined['looked_at']} looked at",
        ),
        ("simmim --help", f"{start['help_seconds']:.2f} s", f"an empty Python: {start['python_seconds']:.2f} s"),
    ]
    rows += [
        (f"masks drawn, {name}", f"{each['ours_per_second']:.0f}/s", f"{each['ratio']:.1f} x the loop over images")
        for name, each in drawn.items()
    ]
    rows += [(f"a step's cost, {name}", *flops.words(numbers)) for name, numbers in costs.items()]
    rows += [(f"{name}: {who}", *step.words(numbers)) for name, all_ in steps.items() for who, numbers in all_.items()]
    rows += [
        (f"{name}, peak memory with 32 images: {who}", "not installed" if peak is None else f"{peak:.0f} MB", "")
        for name, all_ in peaks.items()
        for who, peak in all_.items()
    ]
    rows += [
        (f"{name} on the GPU, bf16: {who}", *step.words(numbers))
        for name, all_ in on_gpu.items()
        for who, numbers in all_.items()
    ]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    print_table(("what", "measured", "beside"), rows, title=machine)
    out.parent.mkdir(parents=True, exist_ok=True)
    numbers = {
        "machine": machine,
        "images": images,
        "index": folder,
        "doctor": examined,
        "startup": start,
        "masks": drawn,
        "flops": costs,
        "steps": steps,
        "peaks": peaks,
        "gpu": on_gpu,
    }
    out.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    print(f"numbers: {out}")


main()
