"""The passport of a checkpoint: how an encoder leaves a run and is taken up elsewhere."""

from simmim.weights.encoder_file import (
    CLASSIFIER_FILE,
    ENCODER_FILE,
    EncoderFile,
    load_encoder_weights,
    read_about,
    read_encoder,
    resize_backbone,
    save_encoder,
)

__all__ = [
    "CLASSIFIER_FILE",
    "ENCODER_FILE",
    "EncoderFile",
    "load_encoder_weights",
    "read_about",
    "read_encoder",
    "resize_backbone",
    "save_encoder",
]
