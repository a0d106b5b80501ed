"""The network of a recipe on the meta device, without values: that of a pre-training, or of a fine-tuning."""

import re
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from simmim.config import RecipeError, nearest, recipe_names
from simmim.data import Statistics
from simmim.model import SimMIM
from simmim.tasks.catalogue import list_recipes, resolve
from simmim.tasks.classifier import Classifier, build_classifier
from simmim.tasks.finetune import FinetuneConfig
from simmim.tasks.load import encoder_path
from simmim.tasks.plan.formats import NumbersStayReal
from simmim.tasks.plan.pretend import Ledger
from simmim.tasks.pretrain import PretrainConfig, about_encoder, build_model, draw_masks
from simmim.units import Size
from simmim.weights import EncoderFile, read_about

PlannedConfig: TypeAlias = PretrainConfig | FinetuneConfig


@dataclass(frozen=True)
class Network(ABC):
    """What is trained, asked as `model(images, *inputs).loss`."""

    image_size: Size
    channels: int

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """All of it."""

    @property
    @abstractmethod
    def backbone(self) -> nn.Module:
        """timm's model, with the blocks that can be checkpointed and sharded."""

    @abstractmethod
    def inputs(self, images: int) -> tuple[Any, ...]:
        """What the model takes beside so many images."""

    @abstractmethod
    def verb(self, recipe: str) -> list[str]:
        """The beginning of the command that runs the recipe."""

    @abstractmethod
    def shown(self) -> str:
        """What is done to the images, to go on a sentence about them."""

    def parameters_by_part(self) -> dict[str, int]:
        """How many parameters each part has; those of a running average are counted once."""
        found: dict[str, int] = {}
        for name, parameter in self.trained.named_parameters():
            if not name.startswith("average."):
                part = part_of(name)
                found[part] = found.get(part, 0) + parameter.numel()
        return found


@dataclass(frozen=True)
class PretrainNetwork(Network):
    """Encoder and head."""

    config: PretrainConfig
    model: SimMIM

    @property
    def trained(self) -> nn.Module:
        """Encoder, head and target."""
        return self.model

    @property
    def backbone(self) -> nn.Module:
        """The encoder's."""
        return self.model.encoder.backbone

    def inputs(self, images: int) -> tuple[Any, ...]:
        """The first mask of the recipe, for every image, and what it decides."""
        mask = draw_masks(self.config, self.model, batch=1, step=0).expand(images, -1, -1)
        return mask, None, self.model.arrange(mask)

    def verb(self, recipe: str) -> list[str]:
        """`simmim pretrain`."""
        return ["pretrain", recipe]

    def shown(self) -> str:
        """How they are masked."""
        return "masked as the first of the recipe's masks"


@dataclass(frozen=True)
class FinetuneNetwork(Network):
    """A backbone with a classifier."""

    model: Classifier
    classes: int
    run: str | None
    """Whose encoder it takes; None where it is still to be pre-trained."""

    @property
    def trained(self) -> nn.Module:
        """The backbone, and the running average of its weights where one is kept."""
        return self.model

    @property
    def backbone(self) -> nn.Module:
        """The one that is trained."""
        return self.model.backbone

    def inputs(self, images: int) -> tuple[Any, ...]:
        """Shares of the classes, as mixed images have them."""
        return (torch.empty(images, self.classes, device="meta"),)

    def verb(self, recipe: str) -> list[str]:
        """`simmim finetune`."""
        return ["finetune", self.run or "PRETRAINED", recipe]

    def shown(self) -> str:
        """How many classes there are."""
        return f"of {self.classes:,} classes"


def build_network(
    config: PlannedConfig, *, channels: int | None = None, encoder: str | Path | None = None, classes: int = 1000
) -> Network:
    """Make the network of a recipe without values.

    Args:
        config: the recipe.
        channels: of an image, where neither the recipe nor an encoder's file says it; 3 if not given.
        encoder: for a fine-tuning, whose: a run, its file, or the recipe of a pre-training; that of `config` if not given.
        classes: of a fine-tuning.

    Raises:
        ValueError: where its sizes do not fit, as when it is trained; where an encoder is missing, or has no place.
    """
    if isinstance(config, FinetuneConfig):
        if classes < 2:
            raise ValueError(f"--classes {classes}: there must be at least 2")
        about, run = _encoder_of(config, encoder, channels)
        return _finetune_network(config, about, classes=classes, run=run)
    if encoder is not None:
        raise ValueError(f"--encoder {encoder}: a pre-training makes its encoder; it is for recipes of fine-tuning")
    return _pretrain_network(config, channels)


def _pretrain_network(config: PretrainConfig, channels: int | None) -> PretrainNetwork:
    if channels is not None and channels < 1:
        raise ValueError(f"--channels {channels}: there must be at least 1")
    said = config.data.channel_count or (len(config.data.mean) if config.data.mean else None)
    if said and channels not in (None, said):
        raise ValueError(
            f"--channels {channels}: the recipe says {said}, by data.channels or data.mean; for images of {channels} add "
            f"data.channels={channels} data.mean=null data.std=null"
        )
    found = said or channels or 3
    with _without_values():
        model = build_model(config, _made_up(found)).train()
    return PretrainNetwork(config.data.image_size, found, config, model)


def _finetune_network(config: FinetuneConfig, about: EncoderFile, *, classes: int, run: str | None) -> FinetuneNetwork:
    image_size = config.data.image_size or about.image_size
    with _without_values():
        built = build_classifier(
            about,
            None,
            classes=classes,
            drop_path=config.drop_path,
            image_size=image_size,
            window=config.window,
        )
        model = Classifier(built.backbone, label_smoothing=config.label_smoothing, ema=config.ema).train()
    return FinetuneNetwork(image_size, about.channels, model, classes, run)


def _encoder_of(
    config: FinetuneConfig, encoder: str | Path | None, channels: int | None
) -> tuple[EncoderFile, str | None]:
    """What is known of the encoder of a fine-tuning, and its run; None where a recipe will make it."""
    name = encoder or config.encoder
    if name is None:
        raise ValueError(
            "a fine-tuning begins with an encoder: give --encoder RUN, or the recipe of its pre-training, such as "
            "--encoder swin_base_192px_100ep"
        )
    if not Path(name).exists() or Path(name).suffix in (".yaml", ".yml"):
        return _encoder_to_be(str(name), channels), None
    about = read_about(encoder_path(name))
    if channels not in (None, about.channels):
        raise ValueError(f"--channels {channels}: the encoder of {name} takes images of {about.channels}")
    return about, str(name)


def _encoder_to_be(recipe: str, channels: int | None) -> EncoderFile:
    try:
        config = resolve(recipe, task="pretrain")
    except RecipeError as error:
        known = [each.name for each in list_recipes() if each.task == "pretrain"]
        if recipe in recipe_names() or Path(recipe).exists():
            raise ValueError(f"--encoder {recipe}: {error}") from error
        raise ValueError(
            f"--encoder {recipe}: there is no such run, and no such recipe of a pre-training{nearest(recipe, known)}"
        ) from error
    assert isinstance(config, PretrainConfig)
    network = _pretrain_network(config, channels)
    return about_encoder(config, network.model, _made_up(network.channels))


def _made_up(channels: int) -> Statistics:
    return Statistics(channels, (0.5,) * channels, (0.25,) * channels)


@contextmanager
def _without_values() -> Generator[None]:
    with Ledger(), torch.device("meta"), NumbersStayReal():
        yield


def part_of(name: str) -> str:
    """The part of a network that a parameter belongs to, as a person names it."""
    if re.match(r"(backbone\.)?head\.", name):
        return "head"
    if name == "mask_token" or ".patch_embed." in name or re.search(r"\.(cls_token|pos_embed|reg_token)$", name):
        return "embedding"
    if found := re.search(r"\.(?:layers|stages)[._](\d+)\.", name):
        return f"stage {int(found[1]) + 1}"
    return "blocks" if re.search(r"\.(blocks\.\d+|rel_pos_bias)\.", name) else "rest of the encoder"
