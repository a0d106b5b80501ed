"""A checkpoint of another program, recognised and read: which layout, which backbone, and how its tensors matched."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from simmim.weights.adapt import Wanted, adapt, outline
from simmim.weights.blueprint import Blueprint, read_blueprint
from simmim.weights.huggingface import HuggingFace
from simmim.weights.layout import Layout, Pieces
from simmim.weights.match import Match, MatchRow
from simmim.weights.official import Official
from simmim.weights.openmmlab import OpenMMLab
from simmim.weights.pickles import ForeignFile, read_foreign
from simmim.weights.resize import fit_numbers, fit_output_channels
from simmim.weights.timm import Timm

LAYOUTS: tuple[Layout, ...] = (HuggingFace(), OpenMMLab(), Official(), Timm())
LEAST_MATCHED = 0.95
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OFFICIAL_WINDOW = 47
"""Pixels a side of the official SwinV2's normalised target."""

_ADDED = (
    "absolute_pos_embed",
    "pos_embed",
    "position_embeddings",
)  # one tensor of hundreds, and all else depends on it
_HEADS = ("head", "classifier", "decoder", "fc", "neck", "lm_head")


@dataclass(frozen=True)
class Passport:
    """What was read of a foreign checkpoint, under our names."""

    layout: str
    blueprint: Blueprint
    backbone: dict[str, Tensor]
    """timm's names; the classifier with it, if there is one."""
    mask_token: Tensor | None
    decoder: dict[str, Tensor]
    """weight and bias of the linear head; empty where the file has none."""
    match: Match
    changes: dict[str, str]
    """What was resized or copied to fit what was wanted, by the name of the tensor."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    target_window: int
    """Pixels a side of the window that the target was normalised in; 0 for the pixels themselves."""
    notes: tuple[str, ...]
    hints: Mapping[str, Any]

    @property
    def pretraining(self) -> bool:
        """Whether it is a whole masked image model."""
        return self.mask_token is not None and bool(self.decoder)


def read_passport(path: Path, *, wanted: Wanted | None = None, least: float = LEAST_MATCHED) -> Passport:
    """Read a checkpoint file or folder of another program.

    Args:
        path: a file of torch or safetensors, or a folder of Hugging Face or timm.
        wanted: another image size, window or number of channels; and the heads of a plain ViT.
        least: the share of tensors that must match.

    Raises:
        ValueError: where it cannot be read, is in no layout known here, or too little of it matches.
    """
    wanted = wanted or Wanted()
    file = read_foreign(path)
    layout = _recognise(file)
    pieces = layout.read(file.tensors, file.settings)
    hints = {**pieces.hints, "wanted_window": wanted.window, "wanted_size": wanted.image_size}
    if wanted.heads is not None:
        hints["num_heads"] = (wanted.heads,)
    try:
        blueprint = read_blueprint(pieces.backbone, pieces.buffers, hints)
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{path} ({layout.name} layout) cannot be read: {_said(error)}") from error
    match = _match(pieces, blueprint)
    if match.share < least:
        raise ValueError(
            f"{path} ({layout.name} layout, {blueprint.family}): {match.share:.0%} of the tensors match, and {least:.0%} "
            f"are asked for. Missing: {match.names('missing') or 'none'}. Left over: {match.names('left over') or 'none'}. "
            "If that is meant, lower --least"
        )
    ignored = [row.theirs for row in match.rows if row.fate == "left over" and row.theirs.endswith(_ADDED)]
    if ignored and least >= LEAST_MATCHED:
        raise ValueError(
            f"{path} ({layout.name} layout, {blueprint.family}): its encoder adds {ignored[0]} to the tokens and the one here "
            "does not, so it would say something else. If that is meant, lower --least"
        )
    return _adapted(file, layout, pieces, blueprint, match, wanted)


def _said(error: Exception) -> str:
    return f"there is no {error.args[0]}" if isinstance(error, KeyError) else str(error)


def _recognise(file: ForeignFile) -> Layout:
    for layout in LAYOUTS:
        if layout.recognises(file.tensors):
            return layout
    names = list(file.tensors)
    shown = ", ".join(names[:3])
    if all(name.split(".")[0] in _HEADS for name in names):
        raise ValueError(f"{file.path} holds a head alone ({shown}), no encoder; give the file it was trained with")
    raise ValueError(
        f"{file.path} is in no layout that is read here: its {len(names)} tensors begin with {shown}. Read are Swin, SwinV2 "
        f"and ViT in the layouts {', '.join(layout.name for layout in LAYOUTS)}"
    )


def _match(pieces: Pieces, blueprint: Blueprint) -> Match:
    """Hold what was read against the model; what does not fit is taken out of the backbone."""
    there = outline(blueprint).state_dict()
    rows = list(pieces.rows)
    for name in list(pieces.backbone):
        if name not in there or there[name].shape != pieces.backbone[name].shape:
            note = "unknown" if name not in there else f"{tuple(there[name].shape)} would fit"
            source = next(row.theirs for row in rows if row.ours == name)
            rows = [row for row in rows if row.ours != name]
            rows.append(MatchRow("left over", source, "", f"{tuple(pieces.backbone.pop(name).shape)}, {note}"))
    rows += [MatchRow("left over", name, "", "unknown") for name in pieces.strangers]
    rows += [MatchRow("missing", "", name) for name in there if name not in pieces.backbone]
    if pieces.mask_token:
        rows.append(MatchRow("taken", pieces.mask_token[0], "mask_token"))
    rows += [MatchRow("taken", theirs, f"head.0.{word}") for word, (theirs, _) in pieces.decoder.items()]
    return Match(tuple(rows))


def _adapted(
    file: ForeignFile, layout: Layout, pieces: Pieces, blueprint: Blueprint, match: Match, wanted: Wanted
) -> Passport:
    adapted = adapt(pieces.backbone, blueprint, wanted)
    before, channels = blueprint.channels, adapted.blueprint.channels
    decoder = {word: tensor for word, (_, tensor) in pieces.decoder.items()}
    if decoder and decoder["weight"].shape[0] != before * blueprint.stride**2:
        raise ValueError(
            f"{file.path}: its head gives {decoder['weight'].shape[0]} numbers a cell, and {before} channels of "
            f"{blueprint.stride}x{blueprint.stride} px are {before * blueprint.stride**2}"
        )
    changes = dict(adapted.changes) | dict.fromkeys(match.missing, "not in the file: it starts at random")
    if channels != before:
        decoder = {word: fit_output_channels(tensor, before, channels) for word, tensor in decoder.items()}
        changes |= {f"head.0.{word}": f"{before} to {channels} channels" for word in decoder}
    window, notes = _target_window(pieces, blueprint, layout)
    mean, std, said = _statistics(file, pieces, channels)
    if not said and not (layout.name == "official" and before == len(IMAGENET_MEAN)):  # it knows no others
        notes.append("mean and std of the pixels (ImageNet's)")
    return Passport(
        layout=layout.name,
        blueprint=adapted.blueprint,
        backbone=adapted.backbone,
        mask_token=pieces.mask_token[1] if pieces.mask_token else None,
        decoder=decoder,
        match=match,
        changes=changes,
        mean=mean,
        std=std,
        target_window=window,
        notes=(*blueprint.guessed, *notes),
        hints=pieces.hints,
    )


def _target_window(pieces: Pieces, blueprint: Blueprint, layout: Layout) -> tuple[int, list[str]]:
    said = pieces.hints.get("target_window")
    if said is not None or not pieces.decoder:
        return said or 0, []
    if blueprint.family == "swinv2" and layout.name == "official":
        return OFFICIAL_WINDOW, [f"the target (normalised in {OFFICIAL_WINDOW} px, as official SwinV2 recipes do)"]
    return 0, ["the target (the pixels themselves)"]


def _statistics(file: ForeignFile, pieces: Pieces, channels: int) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    mean = pieces.hints.get("mean") or file.preprocessing.get("image_mean")
    std = pieces.hints.get("std") or file.preprocessing.get("image_std")
    said = bool(mean and std)
    mean, std = (mean, std) if said else (IMAGENET_MEAN, IMAGENET_STD)
    return (
        fit_numbers(cast("list[float]", mean), channels),
        fit_numbers(cast("list[float]", std), channels),
        said or pieces.mask_token is None,
    )
