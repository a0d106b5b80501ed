"""Number formats: float32, bfloat16 and float16 with a scaled loss."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

PrecisionName = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Run the network in a number format; weights, loss and optimizer stay in float32."""

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        self.name = name
        self._device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[None]:
        """A context in which matrix products run in the format."""
        return torch.autocast(  # pyright: ignore[reportReturnType] - torch's own context says less than it does
            self._device.type, dtype=_DTYPES[self.name], enabled=self.name != "fp32"
        )

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of a loss, scaled where the format needs it."""
        self.scaler.scale(loss).backward()

    @property
    def at_its_limit(self) -> bool:
        """Whether an overflow can no longer be the fault of the loss scale."""
        return not self.scaler.is_enabled() or self.scaler.get_scale() < 1
