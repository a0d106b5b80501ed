"""Any other timm backbone that has a patch embedding, through one hook that stays in place."""

from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import nn

from simmim.encoders.encoder import Architecture, Encoder, EncoderConfig
from simmim.shapes import Features, Images, Tokens
from simmim.units import Size, check_multiple


class TimmConfig(EncoderConfig, frozen=True):
    """A timm backbone by name. The families with an adapter of their own are better served by it."""

    kind: Literal["timm"] = "timm"
    arguments: dict[str, int | float | bool | str] = Field(default_factory=dict[str, int | float | bool | str])
    """Further arguments for timm.create_model."""

    def shape(self) -> dict[str, Any]:
        """The further arguments, as they are."""
        return dict(self.arguments)

    def build(self, *, image_size: Size, in_channels: int) -> "TimmEncoder":
        """Make the encoder with random weights, and look once which shapes it gives."""
        return TimmEncoder(
            self.architecture(image_size=image_size, in_channels=in_channels),
            image_size=image_size,
            in_channels=in_channels,
        )


class TimmEncoder(Encoder):
    """A backbone whose patch embedding is replaced in passing: its own forward runs, the tokens come from us."""

    no_decay = no_decay_as_run = ("cls_token", "pos_embed", "reg_token", "relative_position_bias_table", "logit_scale")

    def __init__(self, architecture: Architecture, *, image_size: Size, in_channels: int) -> None:
        super().__init__(architecture, image_size=image_size, in_channels=in_channels)
        if not isinstance(getattr(self.backbone, "patch_embed", None), nn.Module):
            raise ValueError(f"{architecture.name} has no patch embedding, so there are no tokens that could be hidden")
        declared: Any = getattr(self.backbone.patch_embed, "patch_size", None)
        if declared is not None:
            side = cast("int | tuple[int, int]", declared)
            check_multiple(image_size, side[0] if isinstance(side, tuple) else side, "the model patch")
        self._tokens: Any = None  # ours, while `encode` runs
        self._look_once()
        self.backbone.patch_embed.register_forward_hook(self._inject)

    def _inject(self, module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output if self._tokens is None else self._tokens

    def _look_once(self) -> None:
        """Learn strides, widths and layouts from one pass over an empty image."""
        device = next(self.backbone.parameters()).device
        empty = torch.zeros(1, self.in_channels, *self.image_size, device=device)
        was_training = self.backbone.training
        with torch.enable_grad():
            tokens = self.backbone.eval().patch_embed(empty)
            features = self.backbone.forward_features(empty)
            self._freeze_what_is_not_used(features)
        self.backbone.train(was_training)
        self._row = tokens.ndim == 3
        self.embed_dim = int(tokens.shape[-1])
        self.num_features = int(self.backbone.num_features)
        self.grid = self._grid(tokens.shape[1] if self._row else None, tokens.shape[1:3])
        self.patch_size = self.image_size[0] // self.grid[0]
        check_multiple(self.image_size, self.patch_size, "the model patch")
        self._prefix = int(getattr(self.backbone, "num_prefix_tokens", 0)) if features.ndim == 3 else 0
        self._channels_last = features.ndim == 4 and features.shape[-1] == self.num_features
        sides = features.shape[1:3] if self._channels_last else features.shape[2:4]
        count = features.shape[1] - self._prefix if features.ndim == 3 else None
        self.map_size = self._grid(count, sides)
        self.stride = self.image_size[0] // self.map_size[0]

    def _freeze_what_is_not_used(self, features: torch.Tensor) -> None:
        """A norm that only the classifier would use gets no gradient here; training must not wait for one."""
        parameters = list(self.backbone.parameters())
        gradients = cast("tuple[object, ...]", torch.autograd.grad(features.sum(), parameters, allow_unused=True))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)

    def _grid(self, count: int | None, sides: torch.Size) -> Size:
        """Rows and columns; a row of tokens is laid out in the image's own proportions."""
        if count is None:
            return int(sides[0]), int(sides[1])
        height, width = self.image_size
        rows = round((count * height / width) ** 0.5)
        if rows == 0 or rows * (count // rows) != count or height * (count // rows) != width * rows:
            raise ValueError(f"{self.architecture.name} makes {count} tokens of {height}x{width} px, which is no grid")
        return rows, count // rows

    def embed(self, images: Images) -> Tokens:
        """What the backbone's own patch embedding gives, as a grid."""
        self.check_size(images)
        tokens: torch.Tensor = self.backbone.patch_embed(images)
        return tokens.reshape(tokens.shape[0], *self.grid, tokens.shape[-1])

    def encode(self, tokens: Tokens) -> Features:
        """Run the backbone with these tokens in the place of its own."""
        self._tokens = tokens.flatten(1, 2) if self._row else tokens
        try:
            empty = tokens.new_zeros(tokens.shape[0], self.in_channels, *self.image_size)
            features: torch.Tensor = self.backbone.forward_features(empty)
        finally:
            self._tokens = None
        if features.ndim == 3:
            patches = features[:, self._prefix :].transpose(1, 2)
            return patches.reshape(*patches.shape[:2], *self.map_size)
        return features.permute(0, 3, 1, 2) if self._channels_last else features
