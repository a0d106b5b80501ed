"""Every encoder with every head and target, and every masking for every encoder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reference.parts import Case, build, encoder_cases, example_head, example_target, images_for, parts_of
from simmim.encoders import AnyEncoder
from simmim.heads import AnyHead, InverseSwinHeadConfig
from simmim.masking import AnyMasking
from simmim.model import SimMIM
from simmim.targets import AnyTarget

CASES = list(encoder_cases())
UNIONS = {"masking": AnyMasking, "encoder": AnyEncoder, "head": AnyHead, "target": AnyTarget}


def _joined() -> Iterator[Any]:
    for case in CASES:
        for head in parts_of(AnyHead):
            for target in parts_of(AnyTarget):
                yield pytest.param(case, head, target, id=f"{case[0]}-{head.__name__}-{target.__name__}")


@pytest.mark.parametrize(("case", "head", "target"), list(_joined()))
def test_the_prediction_has_the_channels_and_the_stride_of_the_target(
    case: Case, head: Any, target: Any, tmp_path: Path
) -> None:
    encoder, images = build(case), images_for(case)
    asked = example_target(target, channels=case[3], folder=tmp_path).build(mean=(0.0,) * case[3], std=(1.0,) * case[3])
    chosen = example_head(head)
    if head is InverseSwinHeadConfig and encoder.stride // asked.stride % 8:
        with pytest.raises(ValueError, match="doubles the feature map 3 times"):
            SimMIM(encoder=encoder, head=chosen, target=asked)
        return
    model = SimMIM(encoder=encoder, head=chosen, target=asked)
    mask = torch.zeros(2, *(side // encoder.patch_size for side in case[2]), dtype=torch.bool)
    mask[:, 0] = True
    said = model(images, mask)
    cells = tuple(side // asked.stride for side in case[2])
    assert said.prediction.shape == (2, asked.channels, *cells)
    assert said.target.shape[-2:] == cells
    assert (said.loss.shape, said.loss.dtype) == ((), torch.float32)
    assert said.loss.isfinite()
    assert torch.equal(said.target, asked(images))
    assert asked.distance(said.prediction, said.target).shape[-2:] == cells
    shown = model.reconstruct(images, mask)
    assert shown.shape == images.shape
    visible = ~mask.repeat_interleave(encoder.patch_size, 1).repeat_interleave(encoder.patch_size, 2)[:, None]
    assert torch.equal(shown.where(visible, 0), images.where(visible, 0))


@pytest.mark.parametrize("masking", parts_of(AnyMasking), ids=lambda part: part.__name__)
@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_a_mask_has_one_value_for_each_token_of_the_encoder(masking: Any, case: Case) -> None:
    encoder = build(case)
    draw = masking.model_validate({"mask_patch": encoder.patch_size} if "mask_patch" in masking.model_fields else {})
    generator = torch.Generator().manual_seed(0)
    masks = draw(3, image_size=encoder.image_size, patch_size=encoder.patch_size, generator=generator)
    with torch.no_grad():
        tokens = encoder.embed(images_for(case, batch=3))
    assert (masks.shape, masks.dtype) == (tokens.shape[:3], torch.bool)
    assert masks.any(dim=(1, 2)).all()
    assert not masks.all(dim=(1, 2)).any()


@pytest.mark.parametrize("union", UNIONS.values(), ids=UNIONS)
def test_every_part_of_a_union_has_a_word_of_its_own_that_is_its_default(union: Any) -> None:
    words = [part.model_fields["kind"].default for part in parts_of(union)]
    assert len(set(words)) == len(words)
    assert all(isinstance(word, str) and word.islower() for word in words)
