"""Every combination of masks, heads, targets and losses that the paper names learns: two steps, and a smaller loss."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from reference.parts import example_head, example_target, parts_of
from simmim.encoders import SwinConfig
from simmim.heads import AnyHead
from simmim.masking import AnyMasking
from simmim.model import Scored, SimMIM
from simmim.targets import AnyTarget, BinTarget, PatchPixelTarget, PixelTarget

_SIZE, _CHANNELS = (32, 32), 3
_ENCODER = SwinConfig(patch_size=2, embed_dim=8, depths=(1, 1, 1), num_heads=(1, 1, 2), window=4)  # a stride of 8


def _targets() -> dict[str, dict[str, Any]]:
    """Settings of every target in every variant that the paper's tables 3 and 4 have, and the later ones."""
    named: dict[str, dict[str, Any]] = {}
    for part in parts_of(AnyTarget):
        word = part.model_fields["kind"].default
        distances = get_args(part.model_fields["distance"].annotation) if "distance" in part.model_fields else (None,)
        for distance in distances:
            named[f"{word} {distance or ''}".strip()] = {"part": part, **({"distance": distance} if distance else {})}
    named["pixels coarse"] = {"part": PixelTarget, "stride": 8}
    named["bins 256"] = {"part": BinTarget, "bins": 256, "stride": 4}
    return named


TARGETS = _targets()


def test_the_sweep_holds_what_the_paper_names() -> None:
    assert {part.model_fields["kind"].default for part in parts_of(AnyMasking)} >= {"random", "square", "block"}
    assert {part.model_fields["kind"].default for part in parts_of(AnyHead)} == {"linear", "mlp", "inverse_swin"}
    assert TARGETS.keys() >= {"pixels l1", "pixels l2", "pixels smooth_l1", "bins", "clusters", "tokens"}


def _target(settings: dict[str, Any], folder: Path) -> Any:
    part, more = settings["part"], {name: value for name, value in settings.items() if name != "part"}
    return example_target(part, channels=_CHANNELS, folder=folder).model_copy(update=more)


@pytest.mark.parametrize("scored", get_args(Scored))
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("head", parts_of(AnyHead), ids=lambda part: part.__name__)
@pytest.mark.parametrize("masking", parts_of(AnyMasking), ids=lambda part: part.__name__)
def test_two_steps_make_the_loss_smaller(masking: Any, head: Any, target: str, scored: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    asked = _target(TARGETS[target], tmp_path).build(mean=(0.5,) * _CHANNELS, std=(0.25,) * _CHANNELS)
    encoder = _ENCODER.build(image_size=_SIZE, in_channels=_CHANNELS)
    if encoder.stride // asked.stride % 8 and head.model_fields["kind"].default == "inverse_swin":
        with pytest.raises(ValueError, match="doubles the feature map 3 times"):
            SimMIM(encoder=encoder, head=example_head(head), target=asked, scored=scored)
        return
    model = SimMIM(encoder=encoder, head=example_head(head), target=asked, scored=scored)
    generator = torch.Generator().manual_seed(1)
    cells = 4 if TARGETS[target]["part"] is PatchPixelTarget else 8
    masks = masking(mask_patch=cells, ratio=0.5)(2, image_size=_SIZE, patch_size=2, generator=generator)
    smooth = np.random.default_rng(0).normal(size=(2, _CHANNELS, 4, 4))
    images = torch.nn.functional.interpolate(torch.from_numpy(smooth).float(), size=_SIZE, mode="bicubic")
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    losses = [_step(model, learned, images, masks) for _ in range(3)]
    assert np.isfinite(losses).all()
    assert losses[0] > losses[1] > losses[2]


def _step(model: SimMIM, learned: list[torch.nn.Parameter], images: torch.Tensor, masks: torch.Tensor) -> float:
    """A short step straight downhill, of the same length whatever the target's scale; the loss before it."""
    loss = model(images, masks).loss
    gradients = torch.autograd.grad(loss, learned, allow_unused=True)
    norm = torch.stack([each.norm() for each in gradients if each is not None]).norm()
    with torch.no_grad():
        for parameter, gradient in zip(learned, gradients, strict=True):
            if gradient is not None:
                parameter -= 0.001 * gradient / norm
    return float(loss.detach())
