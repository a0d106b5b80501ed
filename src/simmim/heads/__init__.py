"""Who answers: light heads that turn a feature map into a prediction of the target's shape."""

from typing import Annotated, Protocol

from torch import nn

from simmim.config import OneOf
from simmim.heads.inverse_swin import InverseSwinHead, InverseSwinHeadConfig
from simmim.heads.linear import LinearHead, LinearHeadConfig
from simmim.heads.mlp import MLPHead, MLPHeadConfig

__all__ = [
    "AnyHead",
    "HeadConfig",
    "InverseSwinHead",
    "InverseSwinHeadConfig",
    "LinearHead",
    "LinearHeadConfig",
    "MLPHead",
    "MLPHeadConfig",
]


class HeadConfig(Protocol):
    """The contract of a head's settings."""

    def build(self, *, num_features: int, channels: int, upscale: int) -> nn.Module:
        """Make the head, a module from features (batch, num_features, h, w) to (batch, channels, h*upscale, w*upscale).

        A head that answers each cell of the features from that cell alone says so by an attribute `cell_by_cell`, true, of its
        very class, not of a parent's; in training it is then asked only where something is scored.
        """
        ...


AnyHead = Annotated[HeadConfig, OneOf((LinearHeadConfig, MLPHeadConfig, InverseSwinHeadConfig))]
