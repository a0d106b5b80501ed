"""A foreign checkpoint becomes a model of ours, or a folder that every verb accepts."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from simmim.config import to_tree, write_yaml
from simmim.data import DataConfig, Statistics
from simmim.engine.checkpoint import save_checkpoint
from simmim.engine.folder import RunFolder
from simmim.files import write_text_atomically
from simmim.masking import RandomMasking
from simmim.model import SimMIM
from simmim.targets import LocalPixelTarget, PixelTarget
from simmim.tasks.pretrain import PretrainConfig, build_model
from simmim.units import Size
from simmim.version import __version__
from simmim.weights import CLASSIFIER_FILE, ENCODER_FILE, EncoderFile, load_encoder_weights, save_encoder
from simmim.weights.adapt import Wanted, timm_name
from simmim.weights.match import Fate
from simmim.weights.passport import LEAST_MATCHED, Passport, read_passport


def config_of(passport: Passport) -> PretrainConfig:
    """The recipe that a masked image model of this passport is trained by, as far as the file says it."""
    blueprint = passport.blueprint
    return PretrainConfig(
        masking=_masking(passport),
        encoder=blueprint.encoder(),
        target=LocalPixelTarget(window=passport.target_window) if passport.target_window else PixelTarget(),
        data=DataConfig(
            image_size=blueprint.image_size, channels=blueprint.channels, mean=passport.mean, std=passport.std
        ),
    )


def _masking(passport: Passport) -> RandomMasking:
    """As the file says; the paper's, with cells that fit the image, where it does not."""
    said = {name: passport.hints[name] for name in ("mask_patch", "ratio") if name in passport.hints}
    masking = RandomMasking().model_copy(update=said)
    fits = not any(side % masking.mask_patch for side in passport.blueprint.image_size)
    return masking if fits else masking.model_copy(update={"mask_patch": passport.blueprint.stride})


def statistics_of(passport: Passport) -> Statistics:
    """What the pixels were normalised by."""
    return Statistics(passport.blueprint.channels, passport.mean, passport.std, 0)


def model_of(passport: Passport) -> SimMIM:
    """The masked image model of a pre-training file.

    Raises:
        ValueError: where the file holds an encoder alone.
    """
    if not passport.pretraining:
        raise ValueError(
            f"this is an encoder without mask token and head ({passport.layout} layout, {passport.blueprint.family}), no "
            "whole masked image model; load_encoder reads it"
        )
    assert passport.mask_token is not None
    with _fixed_noise():
        model = build_model(config_of(passport), statistics_of(passport))
    weights = {f"encoder.backbone.{name}": tensor for name, tensor in passport.backbone.items()}
    weights |= {f"head.0.{word}": tensor for word, tensor in passport.decoder.items()}
    missing = [f"encoder.backbone.{name}" for name in passport.match.missing]
    load_encoder_weights(model, {**weights, "mask_token": passport.mask_token}, replaced=missing)
    return model.eval()


def encoder_of(passport: Passport) -> nn.Module:
    """The backbone, with its classifier if it has one."""
    about = describe_encoder(passport)
    with _fixed_noise():
        backbone = about.create()
    load_encoder_weights(backbone, passport.backbone, replaced=passport.match.missing)
    config = getattr(backbone, "pretrained_cfg", None)
    if isinstance(config, dict):
        config.update(input_size=(about.channels, *about.image_size), mean=about.mean, std=about.std)
    return backbone.eval()


@contextmanager
def _fixed_noise() -> Generator[None]:
    """What a file lacks starts at random, and always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def describe_encoder(passport: Passport) -> EncoderFile:
    """What the file of the encoder will say."""
    blueprint = passport.blueprint
    names = tuple(str(name) for name in passport.hints.get("classes", ()))
    numbered = tuple(str(number) for number in range(blueprint.classes))
    return EncoderFile(
        architecture=timm_name(blueprint),
        arguments=blueprint.arguments(),
        image_size=blueprint.image_size,
        channels=blueprint.channels,
        mean=passport.mean,
        std=passport.std,
        recipe=write_yaml(config_of(passport)) if passport.pretraining else "",
        version=__version__,
        classes=names if len(names) == blueprint.classes else numbered,
    )


@dataclass(frozen=True)
class Imported:
    """What an import took, and where it lies."""

    folder: str
    layout: str
    family: str
    image_size: Size
    window: int | None
    pretraining: bool
    """Whether the folder holds a whole masked image model, or an encoder alone."""
    share: float
    """Tensors that matched, of all that should have."""
    counts: dict[str, int]
    """Tensors by their fate: taken, derived, left over, missing."""
    names: dict[str, str]
    """A few of them, by their fate."""
    changes: dict[str, str]
    guessed: tuple[str, ...]


def import_weights(
    file: str | Path,
    *,
    out: str | Path,
    wanted: Wanted | None = None,
    least: float = LEAST_MATCHED,
) -> Imported:
    """Make a folder of ours from a checkpoint of another program.

    Args:
        file: a file of torch or safetensors, or a folder of Hugging Face or timm.
        out: the new folder; `probe`, `finetune`, and for a whole model `reconstruct`, accept it as a run.
        wanted: what shall be otherwise than in the file (image size, window, channels, position biases), and the heads of a
            plain ViT, which its tensors do not tell.
        least: the share of tensors that must match; with less than 1, what is missing starts at random.

    Raises:
        ValueError: where it cannot be read, too little matches, or the folder is not empty.
    """
    if RunFolder(file).recipe.exists():
        raise ValueError(f"{file} is a run of simmim already: every verb takes it as it is")
    folder = RunFolder(out)
    if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        raise ValueError(f"{out} is not empty; choose another --out")
    passport = read_passport(Path(file), wanted=wanted, least=least)
    if passport.pretraining:
        _write_run(folder, passport)
    else:
        name = CLASSIFIER_FILE if passport.blueprint.classes else ENCODER_FILE
        save_encoder(folder.path / name, encoder_of(passport), describe_encoder(passport))
    rows = [row._asdict() for row in passport.match.rows]
    write_text_atomically(folder.path / "import.json", json.dumps({"source": str(file), "rows": rows}, indent=1) + "\n")
    return _told(folder, passport)


def _write_run(folder: RunFolder, passport: Passport) -> None:
    """A run that has come to its end: recipe, checkpoint, encoder."""
    model, config, statistics = model_of(passport), config_of(passport), statistics_of(passport)
    numbers = {"channels": statistics.channels, "mean": statistics.mean, "std": statistics.std}
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    save_encoder(folder.path / ENCODER_FILE, model.encoder.backbone, describe_encoder(passport))
    save_checkpoint(folder.checkpoints, 0, tensors=tensors, state={"recipe": to_tree(config), **numbers}, keep=1)
    write_text_atomically(folder.recipe, write_yaml(config))


def _told(folder: RunFolder, passport: Passport) -> Imported:
    fates: tuple[Fate, ...] = ("taken", "derived", "left over", "missing")
    return Imported(
        folder=str(folder),
        layout=passport.layout,
        family=passport.blueprint.family,
        image_size=passport.blueprint.image_size,
        window=passport.blueprint.window,
        pretraining=passport.pretraining,
        share=passport.match.share,
        counts={fate: passport.match.count(fate) for fate in fates},
        names={fate: passport.match.names(fate) for fate in fates},
        changes=passport.changes,
        guessed=passport.notes,
    )
