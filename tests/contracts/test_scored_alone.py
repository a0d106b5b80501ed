"""What is computed only where something is scored is what is computed everywhere: loss, gradients, prediction, target."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from reference.parts import Case, build, encoder_cases, example_head, example_target, images_for, parts_of
from simmim.heads import AnyHead, InverseSwinHeadConfig, LinearHead, LinearHeadConfig
from simmim.model import SimMIM
from simmim.targets import AnyTarget, Pixels, PixelTarget

CASES = list(encoder_cases())


def joined(case: Case, head: Any, target: Any, folder: Path, **settings: Any) -> SimMIM:
    asked = example_target(target, channels=case[3], folder=folder)
    asked = asked.model_copy(update=settings).build(mean=(0.1,) * case[3], std=(0.8,) * case[3])
    encoder = build(case)
    torch.manual_seed(1)
    for parameter in encoder.parameters():  # SwinV2's norms begin as zeros, and hide what their branches do
        parameter.data += 0.05 * torch.randn_like(parameter)
    return SimMIM(encoder=encoder, head=example_head(head), target=asked)


def mask_for(model: SimMIM) -> Tensor:
    """Tokens hidden one by one in one image, a block in the other, so that squares are hidden whole, in part and not at all."""
    grid = [side // model.encoder.patch_size for side in model.encoder.image_size]
    mask = torch.zeros(2, *grid, dtype=torch.bool)
    mask[0, : grid[0] // 2, : grid[1] // 2] = (
        torch.rand(grid[0] // 2, grid[1] // 2, generator=torch.manual_seed(2)) < 0.3
    )
    mask[1, grid[0] // 2 :, grid[1] // 2 :] = mask[0, 0, 0] = True
    return mask


def learn(model: SimMIM, *inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(*inputs).loss
    loss.backward()
    return loss, {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def assert_alike(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert torch.allclose(one[0], other[0], rtol=1e-5)
    assert one[1].keys() == other[1].keys()
    largest = max(float(each.abs().max()) for each in one[1].values())
    assert largest > 0
    for name, gradient in one[1].items():
        assert torch.allclose(gradient, other[1][name], rtol=1e-4, atol=1e-5 * largest), name


def squares_of(maps: Tensor, model: SimMIM, mask: Tensor) -> Tensor:
    """The squares with a hidden token, cut out one by one."""
    height, width = model.encoder.image_size
    side = torch.lcm(torch.tensor(model.encoder.stride), torch.tensor(model.target.stride)).item()
    tokens, cells = side // model.encoder.patch_size, side // (height // maps.shape[2])
    found = [
        maps[image, :, row * cells : (row + 1) * cells, column * cells : (column + 1) * cells]
        for image in range(len(maps))
        for row in range(height // side)
        for column in range(width // side)
        if mask[image, row * tokens : (row + 1) * tokens, column * tokens : (column + 1) * tokens].any()
    ]
    return torch.stack(found)


def _cases() -> Iterator[Any]:
    for case in CASES:
        for target in parts_of(AnyTarget):
            yield pytest.param(case, LinearHeadConfig, target, id=f"{case[0]}-linear-{target.__name__}")
    finest = max(CASES, key=lambda case: build(case).stride)
    for head in parts_of(AnyHead):
        yield pytest.param(finest, head, PixelTarget, id=f"{finest[0]}-{head.__name__}")


@pytest.mark.parametrize(("case", "head", "target"), list(_cases()))
def test_it_is_a_part_of_what_is_computed_everywhere(case: Case, head: Any, target: Any, tmp_path: Path) -> None:
    model = joined(case, head, target, tmp_path)
    images, mask = images_for(case), mask_for(model)
    arranged = model.arrange(mask)
    assert_alike(learn(model, images, mask), learn(model, images, mask, None, arranged))
    whole, alone = model(images, mask), model(images, mask, None, arranged)
    assert torch.allclose(alone.prediction, squares_of(whole.prediction, model, mask), atol=1e-5)
    assert torch.allclose(alone.target.float(), squares_of(whole.target, model, mask).float(), atol=1e-5)
    assert (
        0 < len(alone.prediction) < mask[:, :: mask.shape[1], :: mask.shape[2]].numel() * whole.prediction[0, 0].numel()
    )


@pytest.mark.parametrize("stride", [2, 4, 16, 32])
def test_a_square_holds_whole_cells_of_features_and_target(stride: int, tmp_path: Path) -> None:
    (case,) = [case for case in CASES if case[0] == "vit"]  # of stride 8
    model = joined(case, LinearHeadConfig, PixelTarget, tmp_path, stride=stride)
    images, mask = images_for(case), mask_for(model)
    arranged = model.arrange(mask)
    assert_alike(learn(model, images, mask), learn(model, images, mask, None, arranged))
    assert model(images, mask, None, arranged).prediction.shape[2:] == (max(8 // stride, 1),) * 2


def test_pixels_that_are_not_valid_count_nothing(tmp_path: Path) -> None:
    (case,) = [case for case in CASES if case[0] == "vit"]
    model = joined(case, LinearHeadConfig, PixelTarget, tmp_path)
    images, mask = images_for(case), mask_for(model)
    valid = torch.rand(2, *case[2], generator=torch.manual_seed(3)) < 0.8
    one = learn(model, images, mask, valid)
    assert_alike(one, learn(model, images, mask, valid, model.arrange(mask)))
    assert one[0] != model(images, mask).loss


def test_nothing_hidden_is_scored_as_nothing(tmp_path: Path) -> None:
    (case,) = [case for case in CASES if case[0] == "vit"]
    model = joined(case, LinearHeadConfig, PixelTarget, tmp_path)
    mask = torch.zeros_like(mask_for(model))
    said = model(images_for(case), mask, None, model.arrange(mask))
    said.loss.backward()
    assert said.loss == 0
    assert all(not each.grad.any() for each in model.parameters() if each.grad is not None)


def test_a_reconstruction_is_scored_everywhere(tmp_path: Path) -> None:
    (case,) = [case for case in CASES if case[0] == "vit"]
    model = joined(case, LinearHeadConfig, PixelTarget, tmp_path)
    model.scored = "everywhere"
    mask = mask_for(model)
    assert model.arrange(mask).scored is None
    whole, arranged = model(images_for(case), mask), model(images_for(case), mask, None, model.arrange(mask))
    assert torch.equal(whole.loss, arranged.loss)
    assert whole.prediction.shape == arranged.prediction.shape


@pytest.mark.parametrize("head", parts_of(AnyHead), ids=lambda part: part.__name__)
def test_head_and_target_are_asked_about_what_is_scored_and_no_more(head: Any, tmp_path: Path) -> None:
    case = max(CASES, key=lambda case: build(case).stride)
    model = joined(case, head, PixelTarget, tmp_path)
    images, mask = images_for(case), mask_for(model)
    asked: list[torch.Size] = []
    model.head.register_forward_hook(lambda module, inputs, output: asked.append(inputs[0].shape))
    model(images, mask, None, model.arrange(mask))
    cells = [side // model.encoder.stride for side in case[2]]
    hidden = len(squares_of(images, model, mask))
    everywhere = (2, model.encoder.num_features, *cells)
    alone = (1, model.encoder.num_features, hidden, 1)
    assert hidden < 2 * cells[0] * cells[1]
    assert asked == [
        everywhere if head is InverseSwinHeadConfig else alone
    ]  # the one that looks around needs all of it


WITHOUT = ("swin wide", "swinv2 giant", "timm")
"""Windows that do not fill the map, or are taken a few at a time, and blocks of other classes: all tokens are computed."""


def _asked_of_the_last_mlp(model: SimMIM) -> list[Tensor]:
    asked: list[Tensor] = []
    mlp: Any = model.encoder.blocks[-1].mlp  # pyright: ignore[reportAttributeAccessIssue]
    mlp.register_forward_hook(lambda module, inputs, output: asked.append(inputs[0]))
    return asked


@pytest.mark.parametrize("hidden_only", [False, True], ids=["dense", "visible only"])
@pytest.mark.parametrize("case", [case for case in CASES if not case[0].startswith(WITHOUT)], ids=lambda case: case[0])
def test_the_last_mlp_is_asked_about_what_is_scored_and_no_more(case: Case, hidden_only: bool, tmp_path: Path) -> None:
    model = joined(case, LinearHeadConfig, PixelTarget, tmp_path, stride=1)
    if hidden_only:
        model.encoder.see_visible_only(1)
    images, mask = images_for(case), mask_for(model)
    scored = len(squares_of(images, model, mask))
    asked = _asked_of_the_last_mlp(model)
    model(images, mask, None, model.arrange(mask))
    assert asked.pop().shape[:-1] == (scored,)
    model(images, mask)
    assert asked.pop().shape[:-1].numel() > scored


@pytest.mark.parametrize("name", ["vit", "beit", "swin", "swinv2"])
def test_paths_are_dropped_and_blocks_computed_again_as_everywhere(name: str, tmp_path: Path) -> None:
    (case,) = [case for case in CASES if case[0] == name]
    case = (name, case[1].model_copy(update={"drop_path": 0.5}), *case[2:])
    model = joined(case, LinearHeadConfig, PixelTarget, tmp_path).train()
    model.encoder.checkpoint_blocks("blocks")
    images, mask = images_for(case, batch=2), mask_for(model)
    together = []
    for arranged in (None, model.arrange(mask)):
        torch.manual_seed(5)
        together.append(learn(model, images, mask, None, arranged))
    assert_alike(*together)
    torch.manual_seed(6)
    assert not torch.allclose(learn(model, images, mask)[0], together[0][0]), "no path was dropped"


class Blurred(Pixels):
    """A target that looks around, made of one that does not."""

    def __call__(self, images: Tensor) -> Tensor:
        return super().__call__(avg_pool2d(images, 3, stride=1, padding=1))


class LooksAround(LinearHead):
    """A head that looks around, made of one that does not."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(avg_pool2d(features, 3, stride=1, padding=1))


@pytest.mark.parametrize("part", [Blurred, LooksAround])
def test_a_subclass_is_not_held_to_what_its_parent_promised(part: type, tmp_path: Path) -> None:
    (case,) = [case for case in CASES if case[0] == "vit"]
    plain = joined(case, LinearHeadConfig, PixelTarget, tmp_path)
    settings = SimpleNamespace(build=partial(LooksAround)) if part is LooksAround else LinearHeadConfig()
    target: Any = Blurred(case[3]) if part is Blurred else plain.target
    model = SimMIM(encoder=plain.encoder, head=settings, target=target)  # type: ignore[arg-type]
    images, mask = images_for(case), mask_for(model)
    assert_alike(learn(model, images, mask), learn(model, images, mask, None, model.arrange(mask)))
