"""ONNX: the encoder as a graph that other runtimes run, for any number of images at a time."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any, cast

import torch

from simmim.encoders.giants import attend_at_once
from simmim.files import write_atomically, write_text_atomically
from simmim.tasks.leaving import Leaving, Maps, difference, example
from simmim.tasks.outward import Written

ONNX_FILE = "encoder.onnx"
_MOST_BYTES = 2**31 - 2**20  # the format's own limit; above it weights lie in a file beside
_OUTPUTS = ("features", "pooled", "logits")


def write_onnx(one: Leaving, out: Path) -> Written:
    """The encoder with the outputs features, pooled, and logits where it has a classifier; checked by onnxruntime."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ValueError('this needs onnx and onnxruntime; install them with: pip install "simmim[onnx]"') from error
    attend_at_once(one.backbone)  # a loop over windows would hold the number of images
    maps = Maps(one.backbone, classes=len(one.about.classes)).eval()
    images = example(one, batch=3).images
    outputs = _OUTPUTS[: 3 if one.about.classes else 2]
    program = _program(maps, images[:2], outputs)
    proto = program.model_proto
    for name, value in _facts(one).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, value
    path = out / ONNX_FILE
    if sum(each.numel() * each.element_size() for each in one.backbone.state_dict().values()) < _MOST_BYTES:
        write_atomically(path, lambda part: onnx.save_model(proto, part))
    else:
        onnx.save_model(proto, path, save_as_external_data=True, location=f"{ONNX_FILE}.data")
    write_text_atomically(out / "preprocessing.json", json.dumps(_facts(one), indent=2) + "\n")
    session = cast(Any, onnxruntime).InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in (1, 3):
        said = session.run(None, {"images": images[:count].numpy()})
        with torch.no_grad():
            ours = maps(images[:count])
        worst = max(worst, *(difference(a, torch.from_numpy(b)) for a, b in zip(ours, said, strict=True)))
    code = f"""
import onnxruntime
session = onnxruntime.InferenceSession("{ONNX_FILE}")
{", ".join(outputs)} = session.run(None, {{"images": images}})   # float32, normalised by mean and std of preprocessing.json
"""
    return Written(worst, f"onnxruntime {onnxruntime.__version__}, 1 and 3 images", code)


def _program(maps: Maps, images: torch.Tensor, outputs: tuple[str, ...]) -> Any:
    """torch's current exporter, with the number of images left open; it talks a lot."""
    batch = torch.export.Dim("batch", min=1, max=65536)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            maps,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=["images"],
            output_names=list(outputs),
            verbose=False,
        )


def _facts(one: Leaving) -> dict[str, str]:
    """What the graph does not say: how images are prepared, and the names of the classes."""
    about = one.about
    facts: dict[str, Any] = {
        "image_size": about.image_size,
        "mean": about.mean,
        "std": about.std,
        "classes": about.classes,
    }
    return {name: json.dumps(value) for name, value in facts.items()}
