"""A foreign checkpoint becomes a model of ours, or a folder that every verb accepts."""

import json
from dataclasses import dataclass, replace
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
from simmim.weights.passport import LEAST_MATCHED, Passport, read_passport
from simmim.weights.resize import Rule


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
    model = build_model(config_of(passport), statistics_of(passport))
    weights = {f"encoder.backbone.{name}": tensor for name, tensor in passport.backbone.items()}
    weights |= {f"head.0.{word}": tensor for word, tensor in passport.decoder.items()}
    load_encoder_weights(model, {**weights, "mask_token": passport.mask_token})
    return model.eval()


def encoder_of(passport: Passport) -> nn.Module:
    """The backbone, with its classifier if it has one."""
    about = describe_encoder(passport)
    backbone = about.create()
    load_encoder_weights(backbone, passport.backbone)
    config = getattr(backbone, "pretrained_cfg", None)
    if isinstance(config, dict):
        config.update(input_size=(about.channels, *about.image_size), mean=about.mean, std=about.std)
    return backbone.eval()


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
