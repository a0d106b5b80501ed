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


def official_case(kind: str, folder: Path, *, config: bool = True) -> Case:
    """A file of `kind` (swin, swinv2, vit) with the pickled configuration, and the published formulas' answers."""
    torch.manual_seed(3)
    size, patch = (64, 16) if kind == "vit" else (64, 4)
    if kind == "vit":
        state = official.vit_file(dim=16, depth=2, heads=2, size=size, patch=patch)
    else:
        shape = {"dim": 8, "depths": (2, 2, 2), "heads": (1, 2, 4), "size": size, "window": 4}
        state = official.swin_file(**shape, version=2 if kind == "swinv2" else 1)
    window = 47 if kind == "swinv2" else 0
    path = folder / f"{kind}.pth"
    said: dict[str, Any] = {"config": official_config(kind, size, window)} if config else {}
    torch.save({"model": state, "epoch": 99, "max_accuracy": 0.0, **said}, path)
    images, mask = torch.randn(2, 3, size, size), torch.rand(2, size // patch, size // patch) < 0.6
    features = (official.vit_features if kind == "vit" else official.swin_features)(state, images, mask)
    prediction = official.decode(state, features)
    return Case(path, state, images, mask, features, prediction, official.loss(images, prediction, mask, window=window))


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
