"""Small checkpoints in the layouts of other programs."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from yacs.config import CfgNode  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from reference import official


class Case(NamedTuple):
    """An official pre-training file and what the official code says of two images."""

    path: Path
    state: dict[str, Tensor]
    images: Tensor
    mask: Tensor
    features: Tensor
    prediction: Tensor
    loss: Tensor


SMALL: dict[str, dict[str, Any]] = {
    "swin": {"dim": 8, "depths": (2, 2, 2), "heads": (1, 2, 4), "size": 64, "window": 4},
    "swinv2": {"dim": 8, "depths": (2, 2, 2), "heads": (1, 2, 4), "size": 64, "window": 4},
    "vit": {"dim": 16, "depth": 2, "heads": 2, "size": 64, "patch": 16},
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "swin": {"dim": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "size": 192, "window": 6},
    "swinv2": {"dim": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "size": 192, "window": 12},
    "vit": {"dim": 768, "depth": 12, "heads": 12, "size": 224, "patch": 16},
}
"""Swin-B, SwinV2-B and ViT-B as the official recipes pre-train them."""


def official_case(
    kind: str, folder: Path, *, config: bool = True, shape: dict[str, Any] | None = None, images: int = 2
) -> Case:
    """A file of `kind` (swin, swinv2, vit) with the pickled configuration, and the published formulas' answers."""
    torch.manual_seed(3)
    shape = shape or SMALL[kind]
    size, patch = shape["size"], shape.get("patch", 4)
    version = 2 if kind == "swinv2" else 1
    state = official.vit_file(**shape) if kind == "vit" else official.swin_file(**shape, version=version)
    window = 47 if kind == "swinv2" else 0
    path = folder / f"{kind}.pth"
    said: dict[str, Any] = {"config": official_config(kind, size, window)} if config else {}
    torch.save({"model": state, "epoch": 99, "max_accuracy": 0.0, **said}, path)
    pictures, mask = torch.randn(images, 3, size, size), torch.rand(images, size // patch, size // patch) < 0.6
    with torch.no_grad():
        features = (official.vit_features if kind == "vit" else official.swin_features)(state, pictures, mask)
        prediction = official.decode(state, features)
        loss = official.loss(pictures, prediction, mask, window=window)
    return Case(path, state, pictures, mask, features, prediction, loss)


def official_config(kind: str, size: int, window: int) -> Any:
    """A frozen tree of yacs, as the official code pickles it."""
    block = {"NUM_HEADS": 2} if kind == "vit" else {"NUM_HEADS": [1, 2, 4], "WINDOW_SIZE": 4}
    target = {"NORM_TARGET": {"ENABLE": bool(window), "PATCH_SIZE": 47}}
    tree = {
        "DATA": {"IMG_SIZE": size, "MASK_PATCH_SIZE": 16, "MASK_RATIO": 0.5},
        "MODEL": {"TYPE": kind, kind.upper(): block, "SIMMIM": target},
    }
    config: Any = CfgNode(tree)
    config.freeze()
    return config


def huggingface_model(kind: str) -> Any:
    """A tiny masked image model of transformers whose weights are wide enough to matter."""
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(4)
    size: dict[str, Any] = {"image_size": 32, "encoder_stride": 8}
    windowed = {"patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
    plain = {
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    name = {"swin": "Swin", "swinv2": "Swinv2", "vit": "ViT"}[kind]
    settings: Any = getattr(transformers, f"{name}Config")(**size, **(plain if kind == "vit" else windowed))
    model: Any = getattr(transformers, f"{name}ForMaskedImageModeling")(settings).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model
