"""AdamW (Loshchilov & Hutter 2019, algorithm 2), in float64."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class AdamW:
    """One parameter."""

    weight: Array
    decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    _mean: Array = field(default_factory=lambda: np.zeros(()))
    _square: Array = field(default_factory=lambda: np.zeros(()))
    _steps: int = 0

    def step(self, gradient: Array, lr: float) -> None:
        """Move the weight."""
        first, second = self.betas
        self._steps += 1
        self._mean = first * self._mean + (1 - first) * gradient
        self._square = second * self._square + (1 - second) * gradient**2
        mean = self._mean / (1 - first**self._steps)
        square = self._square / (1 - second**self._steps)
        self.weight = self.weight - lr * (mean / (np.sqrt(square) + self.eps) + self.decay * self.weight)
