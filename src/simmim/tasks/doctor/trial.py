"""Try a step of a recipe on this machine, in a process of its own that may run out of memory.

The child prints a line of JSON for each thing it found out, so that what was found before a limit is kept.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from simmim.config import to_tree
from simmim.data import Statistics
from simmim.engine.distributed import start_processes
from simmim.engine.metrics import peak_memory
from simmim.engine.precision import Precision, PrecisionName
from simmim.engine.products import fast_products
from simmim.model import SimMIM
from simmim.tasks.pretrain import PretrainConfig, build_model, draw_masks

_START_SECONDS = 2.0  # kept back for a process that ends
_ROUNDS = 5
_FEWEST_ROUNDS = 2
_CLEARLY = 0.8  # of the time of float32
_SHORT_STEP = 1.0  # seconds


@dataclass(frozen=True)
class Trial:
    """What a step of the recipe needs here."""

    images_tried: int = 0
    micro_batch: int = 0
    memory_fixed: float = 0.0
    """Bytes that the process holds whatever the micro batch: the program itself, weights, gradients, Adam's two means."""
    memory_an_image: float = 0.0
    """Bytes that each image of a micro batch adds; 0 where that is less than can be measured."""
    images_per_second: float = 0.0
    """In the format `measured_in`."""
    measured_in: PrecisionName = "fp32"
    """The recipe's own format on a GPU; float32 on a CPU, where the others may take ten times as long."""
    rounds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Seconds of the same small step in each number format that gives finite gradients, taken in turns."""
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """Formats that do not work here, with the reason."""
    ended: str = ""
    """Why it ended early; empty where it did not."""

    def memory(self, images: int) -> float:
        """Bytes that a step of so many images holds at its peak, in proportion to what was measured."""
        return self.memory_fixed + images * self.memory_an_image

    @property
    def memory_bytes(self) -> float:
        """Bytes at the recipe's micro batch."""
        return self.memory(self.micro_batch)

    @property
    def precisions(self) -> dict[str, float]:
        """Seconds of a small step in each format, the median of its rounds."""
        return {name: statistics.median(seconds) for name, seconds in self.rounds.items()}

    def speed_in(self, precision: str) -> float:
        """Images a second in a number format, as far as it was compared with the one that was measured."""
        times = self.precisions
        known = precision in times and self.measured_in in times
        return self.images_per_second * (times[self.measured_in] / times[precision] if known else 1.0)

    @property
    def fastest(self) -> str:
        """The number format to take: float32, unless another needs less than four fifths of its time in every round."""
        plain = self.rounds.get("fp32", [])
        times = self.precisions
        clearly = [
            name
            for name, seconds in self.rounds.items()
            if name != "fp32"
            and len(seconds) >= _FEWEST_ROUNDS
            and all(mine < _CLEARLY * theirs for mine, theirs in zip(seconds, plain, strict=False))
        ]
        # Where fp32 itself does not work, whatever does; bf16 before fp16, for it needs no loss scale.
        allowed = clearly or [name for name in ("fp32", "bf16", "fp16") if name in times][:1]
        preferred = {name: times[name] * (0.9 if name == "bf16" else 1.0) for name in allowed}
        return min(preferred, key=lambda name: preferred[name], default="fp32")


def run_trial(config: PretrainConfig, of: Statistics, *, seconds: float) -> Trial:
    """Try the recipe in a child process for at most so many seconds."""
    words = {"recipe": to_tree(config), "channels": of.channels}
    words |= {"mean": of.mean, "std": of.std, "seconds": seconds}
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
    end = _began() + asked["seconds"] - _START_SECONDS
    config = PretrainConfig.model_validate_json(json.dumps(asked["recipe"]))
    of = Statistics(asked["channels"], tuple(asked["mean"]), tuple(asked["std"]), 0)
    device = start_processes(config.machine.device).device
    model = build_model(config, of).to(device)
    model.encoder.checkpoint_blocks(config.machine.checkpointing)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9)
    wanted = config.machine.micro_batch or config.batch

    first: PrecisionName = "fp32" if device.type == "cpu" else config.machine.precision

    def step(images: int, name: PrecisionName = first) -> float:
        return _step(config, model, optimizer, images=images, precision=Precision(name, device))

    _tell(micro_batch=wanted, measured_in=first)
    one = _try_sizes(step, wanted, device, end)
    _try_formats(step, 4 if one < _SHORT_STEP else 1, end)


def _try_sizes(step: Callable[[int], float], wanted: int, device: torch.device, end: float) -> float:
    """One image first, then the micro batch or as much of it as there is time for; each is told when it is known.

    Returns:
        Seconds of a step of one image.
    """
    cold = step(1)  # it also makes gradients, Adam's means and the plans of kernels
    fixed = _peak(device)
    one = step(1) if time.monotonic() + cold < end else cold
    _tell(images_tried=1, memory_fixed=fixed, images_per_second=1 / one)
    # Two steps of this size, in half of the time that is left; a larger batch takes at most in proportion.
    affordable = (end - time.monotonic()) / 4 / max(one, 1e-6)
    images = min(wanted, 2 ** int(math.log2(max(affordable, 1))))
    if images == 1:
        return one
    step(images)
    slope = max(_peak(device) - fixed, 0.0) / (images - 1)
    seconds = step(images)
    _tell(images_tried=images, memory_fixed=fixed - slope, memory_an_image=slope, images_per_second=images / seconds)
    return one


def _try_formats(step: Callable[[int, PrecisionName], float], images: int, end: float) -> None:
    """Formats in turns, so that what else the machine does meets all of them; as many rounds as there is time for."""
    rounds, refused = dict[str, list[float]](), dict[str, str]()
    names: tuple[PrecisionName, ...] = ("fp32", "bf16", "fp16")
    for number in range(_ROUNDS + 1):
        begin = time.monotonic()
        for name in names:
            if name in refused:
                continue
            try:
                seconds = step(images, name)
            except (RuntimeError, ValueError, ArithmeticError) as error:
                refused[name] = (str(error).splitlines() or [type(error).__name__])[0]
                rounds.pop(name, None)
                continue
            if number or seconds > _SHORT_STEP:  # the first of a short step warms up
                rounds.setdefault(name, []).append(seconds)
            _tell(rounds=rounds, refused=refused)
            if time.monotonic() > end:
                return
        if 2 * time.monotonic() - begin > end:  # another round would take too long
            return


def _step(
    config: PretrainConfig, model: SimMIM, optimizer: torch.optim.Optimizer, *, images: int, precision: Precision
) -> float:
    """Seconds of one step on noise; raises where its gradients are not finite."""
    encoder = model.encoder
    device = next(model.parameters()).device
    masks = draw_masks(config, model, batch=images, step=0)
    noise = torch.randn(images, encoder.in_channels, *encoder.image_size, device=device)
    begin = time.monotonic()
    arranged = model.arrange(masks).to(device)
    with fast_products("torch" if config.machine.compile else config.machine.products):
        with precision.autocast():
            loss = model(noise, masks.to(device), None, arranged).loss
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
    """The most memory used so far, in bytes: of the GPU, or of this process, program and libraries included."""
    peaks = peak_memory(device)
    return peaks.get("gpu_memory_gib", peaks["memory_gib"]) * 2**30


def _began() -> float:
    """When this process was started, on the clock of `time.monotonic`; now, where the system does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK") + time.monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return time.monotonic()


def _tell(**found: Any) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    _main()
