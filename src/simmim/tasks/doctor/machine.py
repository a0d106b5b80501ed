"""What this machine offers."""

import os
from pathlib import Path
from typing import Literal

import torch


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name(device: Literal["auto", "cpu", "cuda"]) -> str:
    """The GPU a recipe would take, or "cpu"."""
    return torch.cuda.get_device_name() if device != "cpu" and torch.cuda.is_available() else "cpu"


def free_bytes(device: Literal["auto", "cpu", "cuda"]) -> float:
    """Memory that is free now: of the GPU where the recipe takes one, otherwise of the machine."""
    if device != "cpu" and torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    table = Path("/proc/meminfo")
    if table.exists():
        fields = dict(line.split(":", 1) for line in table.read_text(encoding="ascii").splitlines() if ":" in line)
        return float(fields["MemAvailable"].split()[0]) * 1024
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
