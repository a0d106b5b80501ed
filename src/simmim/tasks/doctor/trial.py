"""Try a step of a recipe on this machine, in a process of its own that may run out of memory.

The child prints a line of JSON for each thing it found out, so that what was found before a limit is kept.
"""

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from simmim.config import to_tree
from simmim.data import Statistics
from simmim.engine.distributed import start_processes
from simmim.engine.precision import Precision, PrecisionName
from simmim.model import SimMIM
from simmim.tasks.pretrain import PretrainConfig, build_model, draw_masks

_STEP_SECONDS = 6.0  # a micro batch that takes longer is tried smaller


@dataclass(frozen=True)
class Trial:
    """What a step of the recipe needs here."""

    images_tried: int = 0
    micro_batch: int = 0
    memory_bytes: float = 0.0
    """At the recipe's micro batch; stretched in proportion where a smaller one was tried."""
    images_per_second: float = 0.0
    precisions: dict[str, float] = field(default_factory=dict[str, float])
    """Seconds of the same small step in each number format that gives finite gradients."""
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """Formats that do not work here, with the reason."""
    ended: str = ""
    """Why it ended early; empty where it did not."""


def run_trial(config: PretrainConfig, statistics: Statistics, *, seconds: float) -> Trial:
    """Try the recipe in a child process for at most so many seconds."""
    words = {"recipe": to_tree(config), "channels": statistics.channels}
    words |= {"mean": statistics.mean, "std": statistics.std}
    command = [sys.executable, "-m", "simmim.tasks.doctor.trial"]
    try:
        done = subprocess.run(
            command, input=json.dumps(words), capture_output=True, text=True, timeout=seconds, check=False
        )
        said, ended = done.stdout, _why(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode() if isinstance(late.stdout, bytes) else str(late.stdout or "")
        ended = f"the time for trying a step was up after {seconds:.0f} s"
    found: dict[str, Any] = {}
    for line in said.splitlines():
        if line.startswith("{") and line.endswith("}"):
            found |= json.loads(line)
    return Trial(**found, ended=ended)


def _why(code: int, stderr: str) -> str:
    if code == 0:
        return ""
    if code == -9 or "out of memory" in stderr.lower() or "MemoryError" in stderr:
        return "it ran out of memory"
    return (stderr.strip().splitlines() or [f"it ended with code {code}"])[-1]


# ----------------------------------------------------------------------------------------------------------- in the child


def _main() -> None:
    asked = json.load(sys.stdin)
    config = PretrainConfig.model_validate_json(json.dumps(asked["recipe"]))
    statistics = Statistics(asked["channels"], tuple(asked["mean"]), tuple(asked["std"]), 0)
    device = start_processes(config.machine.device).device
    before = _peak(device)
    model = build_model(config, statistics).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9)
    wanted = config.machine.micro_batch or config.batch
    precision = config.machine.precision

    def step(images: int, name: PrecisionName) -> float:
        return _step(config, model, optimizer, images=images, precision=Precision(name, device))

    step(1, precision)
    small, one = _peak(device) - before, step(1, precision)
    images = max(1, min(wanted, 2 ** int(math.log2(max(_STEP_SECONDS / max(one, 1e-6), 1)))))
    step(images, precision)  # the first of its size also makes plans and buffers
    large = _peak(device) - before
    seconds = step(images, precision)
    slope = (large - small) / max(images - 1, 1)
    memory = large + slope * (wanted - images)
    # A small model may fit into memory that the process already had: weights, gradients and Adam's two means are the least.
    memory = max(memory, 16.0 * sum(parameter.numel() for parameter in model.parameters()))
    _tell(images_tried=images, micro_batch=wanted, memory_bytes=memory, images_per_second=images / seconds)
    _try_formats(step, min(images, 4))


def _try_formats(step: Callable[[int, PrecisionName], float], images: int) -> None:
    seconds, refused = dict[str, float](), dict[str, str]()
    names: tuple[PrecisionName, ...] = ("fp32", "bf16", "fp16")
    for name in names:
        try:
            step(images, name)
            seconds[name] = min(step(images, name) for _ in range(2))
        except (RuntimeError, ValueError, ArithmeticError) as error:
            refused[name] = (str(error).splitlines() or [type(error).__name__])[0]
        _tell(precisions=seconds, refused=refused)


def _step(
    config: PretrainConfig, model: SimMIM, optimizer: torch.optim.Optimizer, *, images: int, precision: Precision
) -> float:
    """Seconds of one step on noise; raises where its gradients are not finite."""
    encoder = model.encoder
    device = next(model.parameters()).device
    masks = draw_masks(config, model, batch=images, step=0).to(device)
    noise = torch.randn(images, encoder.in_channels, *encoder.image_size, device=device)
    begin = time.monotonic()
    with precision.autocast():
        loss = model(noise, masks).loss
    loss.float().backward()  # unscaled: noise of spread 1 needs no scale
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
    if not math.isfinite(norm):
        raise ArithmeticError("the gradients are not finite")
    optimizer.step()
    optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - begin


def _peak(device: torch.device) -> float:
    """The most memory used so far, in bytes: of the GPU, or of this process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # what the system counts in
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _tell(**found: Any) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    _main()
