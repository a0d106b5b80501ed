"""GPUs as their makers describe them, and many of them together.

Memory, dense peak rates and links as NVIDIA and AMD print them in the data sheets of the A100, H100, H200, HGX B200, L4, L40S,
V100 and T4, of the GeForce RTX 4090 (its architecture paper) and of the MI300X; rates that are printed for sparse matrices
are halved. A link is what one card can send a second to the others of its host: NVLink or Infinity Fabric in one direction,
else PCI Express.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from simmim.config import nearest

HOST = 8
"""GPUs a host."""
NETWORK_GB_S = 25.0
"""Gigabytes a second that a GPU's own adapter sends to other hosts: 200 Gbit/s, an assumption. A ring over all GPUs leaves a
host once, so that each of a host's adapters has its share of the bytes to carry."""


class Gpu(NamedTuple):
    """A card."""

    name: str
    memory_gib: float
    tflops: Mapping[str, float]
    """Dense peak rate of matrix products by machine.precision, in 10^12 operations a second; fp32 without TF32, which PyTorch
    does not use unless told to."""
    link_gb_s: float


def _gpu(name: str, memory_gib: float, *, short: float, fp32: float, link: float, bf16: bool = True) -> Gpu:
    rates = {"fp32": fp32, "fp16": short} | ({"bf16": short} if bf16 else {})
    return Gpu(name, memory_gib, rates, link)


GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("t4", 15, short=65, fp32=8.1, link=16, bf16=False),
        _gpu("v100-32gb", 32, short=125, fp32=15.7, link=150, bf16=False),
        _gpu("rtx4090", 24, short=165.2, fp32=82.6, link=32),
        _gpu("l4", 22.5, short=121, fp32=30.3, link=32),
        _gpu("l40s", 45, short=362, fp32=91.6, link=32),
        _gpu("a100-40gb", 40, short=312, fp32=19.5, link=300),
        _gpu("a100-80gb", 80, short=312, fp32=19.5, link=300),
        _gpu("h100", 80, short=989.4, fp32=67, link=450),
        _gpu("h200", 141, short=989.4, fp32=67, link=450),
        _gpu("b200", 180, short=2250, fp32=75, link=900),
        _gpu("mi300x", 192, short=1307.4, fp32=163.4, link=448),
    )
}


START_SECONDS = 3e-5
"""What it takes to begin an exchange between GPUs, however little is sent: an assumption, which matters for small networks."""


@dataclass(frozen=True)
class Cluster:
    """Some cards of one kind, and how well they are used."""

    gpu: Gpu
    gpus: int
    utilisation: float = 0.4
    """Share of the peak rate that training reaches."""
    margin: float = 0.1
    """Share of the memory that is left alone: the driver, libraries, and what the allocator cannot use."""

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise ValueError(f"--gpus {self.gpus}: there must be at least 1")
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"--utilisation {self.utilisation:g}: a share of the peak rate, above 0 and at most 1")
        if not 0 <= self.margin < 1:
            raise ValueError(f"--margin {self.margin:g}: a share of the memory, from 0 to less than 1")

    @property
    def room(self) -> float:
        """Bytes a card that may be used."""
        return self.gpu.memory_gib * 2**30 * (1 - self.margin)

    @property
    def link(self) -> float:
        """Bytes a second that pass from card to card, around a ring of all cards."""
        adapters = NETWORK_GB_S * self.gpus / self.hosts
        return (self.gpu.link_gb_s if self.hosts == 1 else min(self.gpu.link_gb_s, adapters)) * 1e9

    @property
    def hosts(self) -> int:
        """The fewest hosts that have the same number of cards each, and at most 8."""
        return next(hosts for hosts in range(1, self.gpus + 1) if self.gpus % hosts == 0 and self.gpus // hosts <= HOST)


def find_gpu(name: str | None) -> Gpu:
    """A card by its name; without one, that of this machine if it is known, else an H100.

    Raises:
        ValueError: where there is no such card; the nearest is named.
    """
    if name is None:
        return _of_this_machine() or GPUS["h100"]
    key = name.lower()
    if not key:
        raise ValueError(f"--gpu takes a name; known: {', '.join(GPUS)}")
    alike = [gpu for known, gpu in GPUS.items() if known.startswith(key)]
    if key in GPUS or len(alike) == 1:
        return GPUS.get(key) or alike[0]
    meant = f"; did you mean {' or '.join(gpu.name for gpu in alike)}?" if alike else nearest(key, list(GPUS))
    raise ValueError(f"--gpu {name!r} is not known{meant}; known: {', '.join(GPUS)}")


def _of_this_machine() -> Gpu | None:
    if not torch.cuda.is_available():
        return None
    name, (_, memory) = torch.cuda.get_device_name(0).lower().replace(" ", ""), torch.cuda.mem_get_info(0)
    named = [gpu for gpu in GPUS.values() if gpu.name.split("-")[0] in name]
    return min(named, key=lambda gpu: abs(gpu.memory_gib - memory / 2**30), default=None)
