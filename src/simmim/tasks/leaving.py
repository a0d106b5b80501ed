"""What leaves: the weights of a run as every writer needs them, and what they say of an example."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from simmim.engine.checkpoint import checkpoint_paths
from simmim.heads import LinearHead
from simmim.model import SimMIM
from simmim.tasks.load import encoder_path, is_foreign, load, load_encoder
from simmim.tasks.passport import describe_encoder, encoder_of, model_of
from simmim.tensors import read_words
from simmim.weights import CLASSIFIER_FILE, EncoderFile, read_encoder
from simmim.weights.adapt import outline
from simmim.weights.blueprint import Blueprint, read_blueprint
from simmim.weights.passport import read_passport


@dataclass(frozen=True)
class Leaving:
    """The weights of a run, and what is known of them."""

    backbone: Any
    """timm's, with its classifier if it has one."""
    about: EncoderFile
    model: SimMIM | None
    """The whole masked image model, where there is one."""
    target_window: int
    """Pixels a side of the window that the target is normalised in; 0 for any other target."""

    @property
    def decoder(self) -> nn.Conv2d | None:
        """The published head: one convolution that gives every pixel of the image; None where the head is another one."""
        model = self.model
        if model is None or not isinstance(model.head, LinearHead) or model.target.stride != 1:
            return None
        convolution = model.head[0]
        assert isinstance(convolution, nn.Conv2d)
        return convolution if model.target.channels == self.about.channels else None

    def blueprint(self) -> Blueprint:
        """The architecture, for layouts that hold Swin, SwinV2 and ViT alone.

        Raises:
            ValueError: where it is another one, or differs in its details.
        """
        state = self.backbone.state_dict()
        hints: dict[str, Any] = {"image_size": self.about.image_size}
        if hasattr(self.backbone, "blocks"):
            hints["num_heads"] = (int(self.backbone.blocks[0].attn.num_heads),)
        elif hasattr(self.backbone, "layers"):
            hints["window"] = max(side for stage in self.backbone.layers for side in stage.blocks[0].window_size)
            hints["pretrained_windows"] = _pretrained_windows(self.backbone)
        blueprint = read_blueprint(state, {}, {name: value for name, value in hints.items() if value is not None})
        there = outline(blueprint).state_dict()
        if {name: each.shape for name, each in there.items()} != {name: each.shape for name, each in state.items()}:
            raise ValueError(
                f"{self.about.architecture} is no plain {blueprint.family}: its weights differ in name or shape"
            )
        return blueprint


def _pretrained_windows(backbone: Any) -> tuple[int, ...] | None:
    """The windows a SwinV2 measures its coordinates in, where they are not its own; None for any other backbone."""
    attentions = [stage.blocks[0].attn for stage in backbone.layers]
    windows = [getattr(each, "pretrained_window_size", (0, 0)) for each in attentions]
    if all(window in ((0, 0), tuple(each.window_size)) for window, each in zip(windows, attentions, strict=True)):
        return None
    return tuple(int(window[0]) for window in windows)


def leaving(run: str | Path) -> Leaving:
    """Take up a run, an imported folder, an encoder file, or a file of another program.

    Raises:
        ValueError: where there is no such run, or it is not complete.
    """
    path = Path(run)
    if is_foreign(path):
        passport = read_passport(path)
        model = model_of(passport) if passport.pretraining else None
        backbone = model.encoder.backbone if model else encoder_of(passport)
        return Leaving(backbone, describe_encoder(passport), model, passport.target_window)
    if path.is_file() and "architecture" not in read_words(path):
        raise ValueError(f"{path} is a checkpoint; give the folder of its run, where the encoder lies too")
    file = encoder_path(path)
    about = read_encoder(file)[1]
    whole = path.is_dir() and file.name != CLASSIFIER_FILE and bool(checkpoint_paths(path / "checkpoints"))
    model = load(path) if whole else None
    backbone = model.encoder.backbone.eval() if model else load_encoder(file)
    return Leaving(backbone, about, model, _target_window(model))


def _target_window(model: SimMIM | None) -> int:
    return int(getattr(model.target, "window", 0)) if model else 0


class Example(NamedTuple):
    """Images and masks that two libraries are asked about."""

    images: Tensor
    mask: Tensor
    """True where a token is hidden (batch, rows, columns)."""


def example(one: Leaving, *, batch: int = 2) -> Example:
    """Random images, normalised, and random masks; always the same ones."""
    generator = torch.Generator().manual_seed(0)
    height, width = one.about.image_size
    images = torch.randn(batch, one.about.channels, height, width, generator=generator)
    patch = one.model.encoder.patch_size if one.model else 1
    mask = torch.rand(batch, height // patch, width // patch, generator=generator) < 0.6
    return Example(images, mask)


class Maps(nn.Module):
    """The last map with channels first, and its mean; and the classes, where the backbone has a classifier."""

    def __init__(self, backbone: Any, *, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = classes

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map (batch, channels, rows, columns), mean (batch, channels), and logits (batch, classes) if there are any."""
        features: Tensor = self.backbone.forward_features(images)
        if features.ndim == 3:
            rows, columns = self.backbone.patch_embed.grid_size
            patches = features[:, int(getattr(self.backbone, "num_prefix_tokens", 0)) :].transpose(1, 2)
            shown = patches.reshape(patches.shape[0], patches.shape[1], rows, columns)
        else:
            last = features.shape[-1] == self.backbone.num_features
            shown = features.permute(0, 3, 1, 2) if last else features
        pooled = shown.mean(dim=(2, 3))
        return (shown, pooled, self.backbone.forward_head(features)) if self.classes else (shown, pooled)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    if ours.shape != theirs.shape:
        raise ValueError(f"the other library gives the shape {tuple(theirs.shape)} where we give {tuple(ours.shape)}")
    return float((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-12))
