"""Folders that timm, Hugging Face and the official code load with their own words."""

import json
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from simmim.files import write_atomically, write_text_atomically
from simmim.tasks.leaving import Leaving, Maps, difference, example
from simmim.weights.adapt import timm_name
from simmim.weights.blueprint import Blueprint
from simmim.weights.huggingface import HuggingFace, settings_for
from simmim.weights.official import Official, official_settings
from simmim.weights.passport import read_passport

WEIGHTS = "model.safetensors"
OFFICIAL_FILE = "checkpoint.pth"


class Written(NamedTuple):
    """What a writer of one layout did."""

    difference: float
    """Largest difference of what the foreign library says from what we say, as a share of the largest number."""
    checked_by: str
    code: str
    """How it is loaded, in Python."""
    notes: tuple[str, ...] = ()


def write_timm(one: Leaving, out: Path) -> Written:
    """A folder for `timm.create_model("local-dir:...")`, with image size, mean and std."""
    about = one.about
    try:
        blueprint = one.blueprint()
        name, arguments = timm_name(blueprint), blueprint.arguments()
    except ValueError:  # a backbone of another family goes out as it was made
        name, arguments = about.architecture, {**about.arguments, "img_size": about.image_size}
    heads = {"classifier": "head.fc" if hasattr(one.backbone.head, "fc") else "head"} if about.classes else {}
    config = {
        "architecture": name,
        "num_classes": len(about.classes),
        "num_features": one.backbone.num_features,
        "model_args": {word: value for word, value in arguments.items() if word != "num_classes"},
        "pretrained_cfg": {
            "input_size": [about.channels, *about.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "mean": about.mean,
            "std": about.std,
            "num_classes": len(about.classes),
            "first_conv": "patch_embed.proj",
            **heads,
        },
        **({"label_names": about.classes} if about.classes else {}),
    }
    _write_json(out / "config.json", config)
    _write_weights(out / WEIGHTS, one.backbone.state_dict())
    try:
        there = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    except RuntimeError as error:  # 1.0.29 takes its own Swin weights for old ones, and renames them
        raise ValueError(
            f"timm {timm.__version__} cannot load its own weights from a folder; install timm>=1.0.31"
        ) from error
    images = example(one).images
    with torch.no_grad():
        worst = difference(one.backbone(images), there(images))
    code = f"""
import timm
model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True).eval()
features = model.forward_features(images)   # (batch, {", ".join(map(str, (about.channels, *about.image_size)))}), normalised
"""
    return Written(worst, f"timm {timm.__version__}", code)


def write_official(one: Leaving, out: Path) -> Written:
    """A file of torch as microsoft/SimMIM and microsoft/Swin-Transformer write it, buffers and all."""
    blueprint = one.blueprint()
    if blueprint.family == "vit":
        raise ValueError(
            "the official ViT has a shared position bias and no position embeddings, so it cannot hold this one (kind: vit); "
            "use --to hf or --to timm, or pre-train with encoder.kind=beit"
        )
    weights = {**one.backbone.state_dict(), **_buffers(one.backbone, blueprint)}
    state = Official().write(weights, blueprint.family, wrapped=one.model is not None)
    notes: list[str] = []
    if one.model is not None:
        state["encoder.mask_token"] = one.model.mask_token
        if one.decoder is not None:
            state |= {"decoder.0.weight": one.decoder.weight, "decoder.0.bias": cast(Tensor, one.decoder.bias)}
        else:
            notes.append("The head of this run is not the official one, so the file has no decoder.")
    state = {name: tensor.detach().clone() for name, tensor in state.items()}
    settings = official_settings(blueprint, target_window=one.target_window, mean=one.about.mean, std=one.about.std)
    write_atomically(out / OFFICIAL_FILE, lambda part: torch.save({"model": state, "config": settings}, part))
    back = read_passport(out / OFFICIAL_FILE).backbone
    here = one.backbone.state_dict()
    if back.keys() != here.keys() or any(not torch.equal(back[name], here[name]) for name in here):
        raise ValueError(f"{out / OFFICIAL_FILE} does not read back as it was written")
    code = f"""
import torch
state = torch.load("{OFFICIAL_FILE}")["model"]   # what load_pretrained and load_checkpoint of the official code read
"""
    notes.append("There is no official package to load it back; it was read again by simmim and is equal bit for bit.")
    return Written(0.0, "simmim's reader (no official package exists)", code, tuple(notes))


def _buffers(backbone: Any, blueprint: Blueprint) -> dict[str, Tensor]:
    """The index tables and masks that the official code stores, and timm computes anew."""
    words = ("relative_position_index", "relative_coords_table", "attn_mask")
    found = {name: each for name, each in backbone.named_buffers() if name.endswith(words)}
    if blueprint.family == "beit":
        found = {name: each.reshape(round(each.numel() ** 0.5), -1) for name, each in found.items()}
    return found


def write_huggingface(one: Leaving, out: Path) -> Written:
    """A folder for from_pretrained: the masked image model, the classifier, or the bare encoder."""
    try:
        import transformers
    except ImportError as error:
        raise ValueError('this needs transformers; install it with: pip install "simmim[huggingface]"') from error
    blueprint = one.blueprint()
    if blueprint.image_size[0] != blueprint.image_size[1]:
        raise ValueError(
            f"Hugging Face's models take square images, this one {blueprint.image_size}; use --to timm or onnx"
        )
    last = blueprint.image_size[0] // blueprint.stride
    if blueprint.family == "swin" and blueprint.window is not None and last < blueprint.window:
        raise ValueError(
            f"Hugging Face's Swin has windows of {blueprint.window} tokens in every stage, and the last map of this one is "
            f"{last}x{last}; use --to timm, official or onnx"
        )
    if blueprint.family == "vit" and blueprint.pooled:
        raise ValueError(
            "Hugging Face's ViT classifies by the class token, and this one by the mean of its patches; use --to timm or onnx"
        )
    masked = one.model is not None and one.decoder is not None and blueprint.family != "beit"
    kind = "MaskedImageModeling" if masked else "ImageClassification" if blueprint.classes else "Model"
    settings = settings_for(blueprint, kind=kind, classes=one.about.classes)
    weights = HuggingFace().write(one.backbone.state_dict(), blueprint.family, bare=kind == "Model")
    if masked and one.model is not None and one.decoder is not None:
        weights[f"{blueprint.family}.embeddings.mask_token"] = one.model.mask_token
        weights |= {"decoder.0.weight": one.decoder.weight, "decoder.0.bias": cast(Tensor, one.decoder.bias)}
    _write_json(out / "config.json", settings)
    _write_json(out / "preprocessor_config.json", _preprocessor(one))
    _write_weights(out / WEIGHTS, weights)
    name = settings["architectures"][0]
    there, told = getattr(transformers, name).from_pretrained(out, output_loading_info=True)
    unmet = [*told["missing_keys"], *told["unexpected_keys"]]
    unmet = [word for word in unmet if "pooler" not in word and "mask_token" not in word]
    if unmet:
        raise ValueError(f"transformers {transformers.__version__} does not find every weight: {', '.join(unmet[:4])}")
    worst = _compare(one, there.eval(), kind)
    code = f"""
from transformers import {name}
model = {name}.from_pretrained("PATH/TO/THIS/FOLDER")
"""
    return Written(worst, f"transformers {transformers.__version__}", code, _notes(one, blueprint, masked=masked))


def _compare(one: Leaving, there: Any, kind: str) -> float:
    images, mask = example(one)
    with torch.no_grad():
        if kind == "MaskedImageModeling" and one.model is not None:
            return difference(
                one.model(images, mask).prediction, there(images, bool_masked_pos=mask.flatten(1)).reconstruction
            )
        if kind == "ImageClassification":
            return difference(one.backbone(images), there(images).logits)
        shown = Maps(one.backbone, classes=0)(images)[0].flatten(2).mT
        return difference(shown, there(images).last_hidden_state[:, -shown.shape[1] :])


def _notes(one: Leaving, blueprint: Blueprint, *, masked: bool) -> tuple[str, ...]:
    notes: list[str] = []
    if one.model is not None and not masked:
        why = "predicts vision tokens" if blueprint.family == "beit" else "has another head"
        notes.append(
            f"The library's own masked image model of this family {why}, so mask token and head were left out: this is the "
            f"encoder. The whole model is in the run, and in --to official."
        )
    if masked and one.target_window:
        notes.append(
            f"The model was trained to predict pixels normalised in windows of {one.target_window} px; the loss of this "
            "library compares with the pixels themselves. The predictions are the same."
        )
    return tuple(notes)


def _preprocessor(one: Leaving) -> dict[str, Any]:
    height, width = one.about.image_size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": one.about.mean,
        "image_std": one.about.std,
    }


def _write_json(path: Path, value: Any) -> None:
    write_text_atomically(path, json.dumps(value, indent=2) + "\n")


def _write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    write_atomically(path, lambda part: save_file(plain, part, metadata={"format": "pt"}))
