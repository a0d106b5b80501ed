"""A classifier made of an encoder's file: a fresh head, another image size or window, and the loss it is trained with."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from timm.models.beit import Beit
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from simmim.data import Batch
from simmim.encoders import blocks_of
from simmim.engine.precision import Precision
from simmim.shapes import Images
from simmim.units import Size
from simmim.weights import EncoderFile, load_encoder_weights, resize_backbone
from simmim.weights.resize import resize_table

_HEAD = "head."
_REPLACED = (_HEAD, "fc_norm.", "norm.")  # the classifier, and the norm that moves behind the pooling
_TABLE = "relative_position_bias_table"


class Classified(NamedTuple):
    """What one forward pass says."""

    loss: Tensor
    accuracy: Tensor
    """Share of the images whose class (of a mixed image: whose larger class) was named, a scalar."""


class Classifier(nn.Module):
    """A timm model, the loss it is trained with, and the running average of its weights where one is kept."""

    def __init__(self, backbone: nn.Module, *, label_smoothing: float, ema: float | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.label_smoothing = label_smoothing
        self.average: AveragedModel | None = None
        if ema is not None:
            follow = cast(Any, get_ema_multi_avg_fn(ema))
            self.average = AveragedModel(backbone, multi_avg_fn=follow).requires_grad_(False)

    def shards(self) -> list[nn.Module]:
        """The parts whose weights need to be whole only while they run, where weights are spread over processes."""
        models = [self.backbone] if self.average is None else [self.backbone, self.average.module]
        return [part for model in models for part in (*blocks_of(model), model)]

    @property
    def judged(self) -> nn.Module:
        """The model that is judged and saved: the average where one is kept, else the one that is trained."""
        return self.backbone if self.average is None else self.average.module

    def move_average(self, step: int) -> None:
        """Let the average follow the weights, behind a step."""
        if self.average is not None:
            self.average.update_parameters(self.backbone)

    def forward(self, images: Images, wanted: Tensor) -> Classified:
        """Cross-entropy against smoothed labels (batch,), or against shares of classes (batch, classes) as they are."""
        logits = self.backbone(images).float()
        mixed = wanted.ndim == 2
        loss = F.cross_entropy(logits, wanted, label_smoothing=0.0 if mixed else self.label_smoothing)
        labels = wanted.argmax(dim=1) if mixed else wanted
        return Classified(loss, (logits.argmax(dim=1) == labels).float().mean())


class BuiltClassifier(NamedTuple):
    """A model, and what timm needs to make it again."""

    backbone: nn.Module
    arguments: dict[str, Any]


def build_classifier(
    about: EncoderFile,
    weights: Mapping[str, Tensor] | None,
    *,
    classes: int,
    drop_path: float,
    image_size: Size,
    window: int | None = None,
) -> BuiltClassifier:
    """The encoder with a fresh classifier on the mean of its features.

    BEiT's ViT gets a position bias of its own in every block, begun as the shared one, as official fine-tuning has it.

    Args:
        about: what the encoder's file says; that of a classifier does as well, and its head is left behind.
        weights: the weights of the file, every one of which must fit; None to start at random.
        classes: how many there are.
        drop_path: stochastic depth at the last block.
        image_size: of the new task.
        window: tokens a side of Swin's attention windows; in proportion to the image size if not given.

    Raises:
        ValueError: where weights do not fit, saying which, or the backbone cannot be brought to the image size.
    """
    arguments = {**about.arguments, "img_size": about.image_size, "num_classes": classes, "global_pool": "avg"}
    if arguments.get("use_shared_rel_pos_bias"):
        arguments |= {"use_shared_rel_pos_bias": False, "use_rel_pos_bias": True}
    backbone = before = _create(about.architecture, arguments, drop_path)
    windows, another = _windows(before), image_size != about.image_size
    if another or (windows and window not in (None, max(windows))):
        arguments["img_size"] = image_size
        if windows:
            arguments |= _other_windows(before, windows, image_size=image_size, was=about.image_size, window=window)
        if windows or _has_tables_alone(before):
            backbone, another = _create(about.architecture, arguments, drop_path), False
    if weights is not None:
        kept = {name: tensor for name, tensor in weights.items() if not name.startswith(_HEAD)}
        fitting = resize_position_tables(_own_tables(kept, before), before, backbone)
        load_encoder_weights(backbone, fitting, replaced=_REPLACED)
    if another:
        backbone = resize_backbone(backbone, image_size, was=about.image_size)
    return BuiltClassifier(backbone, arguments)


def logits_of(
    model: nn.Module, batches: Iterable[Batch], images_of: Callable[[Batch], Tensor], precision: Precision
) -> Iterator[tuple[Batch, Tensor]]:
    """Every batch with what a model says of it (batch, classes), stand-ins for unreadable files included."""
    with torch.no_grad():
        for batch in batches:
            with precision.autocast():
                logits = model(images_of(batch))
            yield batch, logits.float()


def resize_position_tables(weights: Mapping[str, Tensor], before: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """Bring tables of relative positions from the windows of one model to those of another, by the official spline.

    The one place where this is done for fine-tuning. A model without such tables leaves all as it is.

    Args:
        weights: of `before`, by name.
        before: the model they fit.
        model: the one they shall fit.
    """
    fitting = dict(weights)
    modules = cast("dict[str, nn.Module]", dict(cast(Any, model).named_modules()))
    for name, module in modules.items():
        if f"{name}.{_TABLE}" in fitting:
            source, wanted = (_table_sides(each) for each in (before.get_submodule(name), module))
            table = fitting[f"{name}.{_TABLE}"]
            extra = len(table) - source[0] * source[1]  # BEiT's three for the class token
            fitting[f"{name}.{_TABLE}"] = resize_table(table, source, wanted, extra=extra)
    return fitting


def _table_sides(attention: Any) -> Size:
    height, width = attention.window_size
    return 2 * height - 1, 2 * width - 1


def _has_tables_alone(backbone: Any) -> bool:
    """Whether a model knows positions by tables only: BEiT's without absolute ones."""
    return isinstance(backbone, Beit) and backbone.pos_embed is None


def _create(name: str, arguments: Mapping[str, Any], drop_path: float) -> nn.Module:
    every: dict[str, Any] = {**arguments, "drop_path_rate": drop_path}
    return timm.create_model(name, pretrained=False, **every)


def _windows(backbone: nn.Module) -> list[int]:
    """Tokens a side of the attention windows of every stage, of Swin and SwinV2; empty for others."""
    stages = list(cast(Any, getattr(backbone, "layers", ())))
    sides = [getattr(stage.blocks[0], "window_size", None) for stage in stages if len(getattr(stage, "blocks", ()))]
    return [int(side[0]) for side in sides if side is not None]


def _other_windows(
    backbone: Any, windows: list[int], *, image_size: Size, was: Size, window: int | None
) -> dict[str, Any]:
    """timm's arguments for another image size or window; SwinV2 is told which windows its position networks know."""
    scaled = max(windows) * image_size[0] / was[0]
    if window is None and scaled != int(scaled):
        raise ValueError(
            f"windows of {max(windows)} tokens at {was[0]} px would be {scaled:g} tokens at {image_size[0]} px; "
            f"set window={round(scaled)}, or what you want"
        )
    arguments: dict[str, Any] = {"window_size": window or int(scaled)}
    if hasattr(backbone.layers[0].blocks[0].attn, "pretrained_window_size"):
        known = [int(stage.blocks[0].attn.pretrained_window_size[0]) for stage in backbone.layers]
        arguments["pretrained_window_sizes"] = tuple(known if any(known) else windows)
    return arguments


def _own_tables(weights: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """BEiT's shared table of relative positions as the beginning of one for every block (official file: utils.py)."""
    weights = dict(weights)
    shared = weights.pop(f"rel_pos_bias.{_TABLE}", None)
    if shared is not None:
        names = [name for name in backbone.state_dict() if name.endswith(f"attn.{_TABLE}")]
        weights |= {name: shared.clone() for name in names}
    return weights
