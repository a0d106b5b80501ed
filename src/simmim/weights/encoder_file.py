"""`encoder.safetensors` and its like: ordinary timm checkpoints that also say what they are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import timm
from torch import Tensor, nn

from simmim.tensors import DamagedFile, read_tensors, read_words, write_tensors
from simmim.units import Size
from simmim.weights.resize import resize_table

ENCODER_FILE = "encoder.safetensors"
CLASSIFIER_FILE = "classifier.safetensors"


@dataclass(frozen=True)
class EncoderFile:
    """What an encoder's file says beside its weights. Plain words and numbers, so that any program can read it."""

    architecture: str
    """Name of the timm model."""
    arguments: Mapping[str, Any]
    """What timm.create_model is called with."""
    image_size: Size
    channels: int
    mean: tuple[float, ...]
    """Of each channel, 8-bit values divided by 255."""
    std: tuple[float, ...]
    recipe: str
    """The whole recipe of the run, as YAML."""
    version: str
    """simmim's, at the time of writing."""
    classes: tuple[str, ...] = ()
    """Names of the classes, where the backbone carries a classifier."""

    def create(self, *, image_size: Size | None = None, **more: Any) -> nn.Module:
        """The backbone with random weights, at another image size if one is given; `more` goes to timm."""
        model = timm.create_model(self.architecture, pretrained=False, **{**self.arguments, **more})
        return model if image_size is None else resize_backbone(model, image_size, was=self.built_for)

    @property
    def built_for(self) -> Size:
        """The image size that the arguments speak of; a fine-tuned backbone may have been resized since."""
        return _pair(self.arguments["img_size"])


def resize_backbone(model: nn.Module, image_size: Size, *, was: Size) -> nn.Module:
    """Bring a backbone, weights and all, to another image size, as the official code does.

    Tables of relative positions are resampled on its geometric grid by a bicubic spline, position embeddings by timm;
    SwinV2 goes on measuring its coordinates in the window it was trained with.

    Raises:
        ValueError: where the backbone cannot be resized.
    """
    if image_size == was:
        return model
    resize = getattr(model, "set_input_size", None)
    if resize is None:
        raise ValueError(f"{type(model).__name__} cannot be brought from {was} to {image_size} px; use its own size")
    _keep_coordinates(model)
    tables = [(each, each.window_size, each.relative_position_bias_table) for each in _biased(model)]
    resize(img_size=image_size)
    for module, window, table in tables:
        source, wanted = ((2 * height - 1, 2 * width - 1) for height, width in (window, module.window_size))
        extra = len(table) - source[0] * source[1]
        module.relative_position_bias_table = nn.Parameter(resize_table(table.detach(), source, wanted, extra=extra))
    return model


def _biased(model: nn.Module) -> list[Any]:
    """The modules that have a table of relative positions."""
    return [each for each in model.modules() if getattr(each, "relative_position_bias_table", None) is not None]


def _keep_coordinates(model: nn.Module) -> None:
    """timm would measure SwinV2's positions in the new window; the official code says the one of the pre-training."""
    for module in cast("list[Any]", list(model.modules())):
        if getattr(module, "pretrained_window_size", None) == (0, 0):
            module.pretrained_window_size = tuple(module.window_size)


def save_encoder(path: Path, backbone: nn.Module | Mapping[str, Tensor], about: EncoderFile) -> None:
    """Write a backbone, or its weights, under its own (timm's) names."""
    words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in asdict(about).items()}
    write_tensors(path, backbone.state_dict() if isinstance(backbone, nn.Module) else backbone, words)


def read_encoder(path: Path) -> tuple[dict[str, Tensor], EncoderFile]:
    """Read the weights, and what is said of them.

    Raises:
        DamagedFile: where the file is not what was saved, or not an encoder of simmim's.
    """
    tensors, words = read_tensors(path)
    return tensors, _about(path, words)


def read_about(path: Path) -> EncoderFile:
    """What is said of the weights alone; whether they are whole is not looked at.

    Raises:
        DamagedFile: where it is not an encoder of simmim's.
    """
    return _about(path, read_words(path))


def _about(path: Path, words: Mapping[str, str]) -> EncoderFile:
    if "architecture" not in words:
        raise DamagedFile(f"{path} is not an encoder: it does not say its architecture")
    return EncoderFile(
        architecture=words["architecture"],
        arguments=_untupled(json.loads(words["arguments"])),
        image_size=_pair(json.loads(words["image_size"])),
        channels=int(words["channels"]),
        mean=tuple(json.loads(words["mean"])),
        std=tuple(json.loads(words["std"])),
        recipe=words["recipe"],
        version=words["version"],
        classes=tuple(json.loads(words["classes"])),
    )


def load_encoder_weights(model: nn.Module, weights: Mapping[str, Tensor], *, replaced: Sequence[str] = ()) -> None:
    """Put weights into a backbone; every one must fit, but for layers that are replaced for the new purpose.

    Args:
        model: the backbone, perhaps with a classifier.
        weights: by timm name.
        replaced: starts of the names that may be missing on either side, such as "head." and "norm.".

    Raises:
        ValueError: where a weight is missing, left over, or of another shape; the first few are named.
    """
    there = model.state_dict()
    problems = [
        *(f"missing: {name}" for name in there if name not in weights and not name.startswith(tuple(replaced))),
        *(f"left over: {name}" for name in weights if name not in there and not name.startswith(tuple(replaced))),
        *(
            f"{name}: {tuple(weights[name].shape)} in the file, {tuple(there[name].shape)} in the model"
            for name in there
            if name in weights and weights[name].shape != there[name].shape
        ),
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueError(f"the weights do not fit the model: {'; '.join(problems[:4])}{more}")
    model.load_state_dict({name: tensor for name, tensor in weights.items() if name in there}, strict=False)


def _pair(sides: Sequence[int]) -> Size:
    height, width = sides
    return height, width


def _untupled(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples, timm wants them."""
    return {
        name: tuple(cast("list[Any]", value)) if isinstance(value, list) else value for name, value in arguments.items()
    }
