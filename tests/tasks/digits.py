"""scikit-learn's digits as arrays of our own making, and a tiny encoder pre-trained on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from sklearn.datasets import load_digits
from torch import nn

PRETRAINING: dict[str, Any] = {
    "data.split": "train",
    "data.image_size": 8,
    "data.view.flip": False,
    "masking.mask_patch": 2,
    "encoder": {"kind": "vit", "patch_size": 2, "embed_dim": 48, "depth": 3, "num_heads": 3},
    "batch": "50 images",
    "machine.micro_batch": "50 images",
    "schedule.duration": "80 steps",
    "output.evaluate_every": "80 steps",
    "output.progress": False,
}


def labels_of(source: Any) -> NDArray[np.int64]:
    return load_digits().target[_numbers(source)]


def pixels_of(source: Any) -> NDArray[np.uint8]:
    """The images (count, 8, 8) that a source names, from scikit-learn itself."""
    return np.rint(load_digits().images[_numbers(source)] * 255 / 16).astype(np.uint8)


def _numbers(source: Any) -> list[int]:
    return [int(source.name(index).removeprefix("digits/")) for index in range(len(source))]


def plain_timm(path: Path) -> tuple[nn.Module, dict[str, str]]:
    """The model in a file, made by timm and safetensors alone."""
    with safe_open(path, framework="pt") as file:
        words = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    arguments = {**json.loads(words["arguments"]), "img_size": json.loads(words["image_size"])}
    model = timm.create_model(words["architecture"], pretrained=False, **arguments).eval()
    model.load_state_dict(weights, strict=True)
    return model, words


def normalised(pixels: NDArray[np.uint8], words: dict[str, str]) -> torch.Tensor:
    mean, std = (torch.tensor(json.loads(words[name])).view(1, -1, 1, 1) for name in ("mean", "std"))
    return (torch.from_numpy(pixels)[:, None].float() / 255 - mean) / std
