"""Encoder files that nobody trained: made in a moment, for what does not depend on training."""

from pathlib import Path

import torch

from simmim.encoders import EncoderConfig
from simmim.units import Size
from simmim.weights import EncoderFile, save_encoder


def encoder_file(folder: Path, config: EncoderConfig, *, size: Size, channels: int) -> Path:
    """A run folder that holds nothing but an encoder with random weights."""
    torch.manual_seed(1)
    encoder = config.build(image_size=size, in_channels=channels)
    for name, parameter in encoder.named_parameters():
        if "relative_position_bias_table" in name or "cpb_mlp" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    architecture = encoder.architecture
    middle = (0.5,) * channels
    about = EncoderFile(
        architecture.name, architecture.arguments, size, channels, middle, middle, recipe="", version="0"
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_encoder(folder / "encoder.safetensors", encoder.backbone, about)
    return folder
