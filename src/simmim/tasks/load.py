"""Take up what a run left: the whole model, or its encoder."""

import logging
from pathlib import Path
from typing import NamedTuple

from torch import nn

from simmim.config import nearest
from simmim.data import Statistics
from simmim.engine.checkpoint import STATE_FILE, Checkpoint, newest_checkpoint, read_checkpoint
from simmim.engine.folder import RunFolder
from simmim.model import SimMIM
from simmim.tasks.passport import config_of, encoder_of, model_of, statistics_of
from simmim.tasks.pretrain import PretrainConfig, about_of, build_model
from simmim.tensors import DamagedFile, read_words
from simmim.weights import CLASSIFIER_FILE, ENCODER_FILE, load_encoder_weights, read_encoder
from simmim.weights.passport import Passport, read_passport

_log = logging.getLogger("simmim")


class LoadedModel(NamedTuple):
    """A model and what it was trained with."""

    model: SimMIM
    config: PretrainConfig
    statistics: Statistics
    step: int


def load(run: str | Path) -> SimMIM:
    """The whole model of a pre-training, ready to be asked: `load(RUN)(images, mask)`.

    Args:
        run: a run folder (its newest checkpoint is taken), a checkpoint, or a pre-training file of another program:
            the official one, Hugging Face's folder, OpenMMLab's.

    Raises:
        ValueError: where there is no such run, or nothing in it that can be read.
    """
    return load_with_settings(run).model


def load_with_settings(run: str | Path) -> LoadedModel:
    """The model of a pre-training with its recipe and the statistics of its images."""
    if is_foreign(Path(run)):
        passport = _foreign(Path(run))
        return LoadedModel(model_of(passport), config_of(passport), statistics_of(passport), 0)
    checkpoint = _checkpoint(Path(run))
    config, statistics = about_of(checkpoint.state)
    model = build_model(config, statistics)
    model.load_state_dict(checkpoint.below("model"))
    return LoadedModel(model.eval(), config, statistics, checkpoint.state["step"])


def _checkpoint(path: Path) -> Checkpoint:
    if path.name == ENCODER_FILE and path.is_file():
        raise ValueError(
            f"{path} holds the encoder alone; load_encoder reads it. The whole model is in the run folder or in one of its "
            "checkpoints"
        )
    if path.is_file() or (path / STATE_FILE).is_file():
        return read_checkpoint(path)
    if not path.exists():
        raise ValueError(_no_run(path))
    checkpoint = newest_checkpoint(RunFolder(path).checkpoints)
    if checkpoint is None:
        raise ValueError(f"{path} holds no checkpoint (yet); looked in {RunFolder(path).checkpoints}")
    return checkpoint


def load_encoder(run: str | Path) -> nn.Module:
    """The encoder of a run as an ordinary timm model; with its classifier, where it was fine-tuned.

    Its `pretrained_cfg` says image size, mean and std, so timm's own helpers prepare images as the run did.

    Args:
        run: a run folder, an `encoder.safetensors` or a `classifier.safetensors`, or a file of another program.
    """
    if is_foreign(Path(run)):
        return encoder_of(_foreign(Path(run)))
    weights, about = read_encoder(encoder_path(run))
    model = about.create(image_size=about.image_size)
    load_encoder_weights(model, weights)
    config = getattr(model, "pretrained_cfg", None)
    if isinstance(config, dict):
        config.update(input_size=(about.channels, *about.image_size), mean=about.mean, std=about.std)
    return model.eval()


def _foreign(path: Path) -> Passport:
    """A file of another program; what had to be guessed is said."""
    passport = read_passport(path)
    for guess in passport.notes:
        _log.warning("%s does not say %s: guessed", path, guess)
    if passport.match.missing:
        _log.warning("%s lacks %s, which start at random", path, passport.match.names("missing"))
    if passport.match.count("left over"):
        _log.warning("of %s is left over: %s", path, passport.match.names("left over"))
    return passport


def is_foreign(path: Path) -> bool:
    """Whether a file or folder is of another program: it exists, and simmim's words are not in it."""
    if path.is_dir():
        ours = (RunFolder(path).recipe, RunFolder(path).checkpoints, path / ENCODER_FILE, path / CLASSIFIER_FILE)
        return (path / "config.json").exists() and not any(each.exists() for each in ours)
    if not path.is_file():
        return False
    if path.suffix != ".safetensors":
        return True
    try:
        words = read_words(path)
    except DamagedFile:
        return False  # the reader of our own files says what is wrong with it
    return not {"architecture", "state"} & set(words)


def encoder_path(run: str | Path) -> Path:
    """Where the encoder of a run lies.

    Raises:
        ValueError: where there is none, saying whether the run is not complete or it is a file of another program.
    """
    path = Path(run)
    if is_foreign(path):
        raise ValueError(f"{path} is of another program; first: simmim import {path} --out DIR, then give DIR")
    if path.is_file():
        return path
    for name in (ENCODER_FILE, CLASSIFIER_FILE):
        if (path / name).is_file():
            return path / name
    if (path / "recipe.yaml").exists():
        raise ValueError(f"{path} is not complete, so it has no encoder yet; continue it with --resume")
    raise ValueError(_no_run(path) if not path.exists() else f"{path} holds no encoder")


def _no_run(path: Path) -> str:
    beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"there is no run {str(path)!r}{nearest(path.name, beside)}"


def classifier_path(run: str | Path) -> Path:
    """Where the classifier of a fine-tuning run lies.

    Raises:
        ValueError: where there is none, or what was named is an encoder alone.
    """
    path = Path(run)
    path = path / CLASSIFIER_FILE if (path / CLASSIFIER_FILE).is_file() else encoder_path(path)
    if not read_encoder(path)[1].classes:
        raise ValueError(
            f"{path} is an encoder without a classifier; first: simmim finetune {run} --data LABELLED --out RUN2"
        )
    return path
