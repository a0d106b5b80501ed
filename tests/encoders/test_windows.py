"""Tokens that lie in groups: the same function as timm's, and a cheaper one where blocks see visible tokens only."""

from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from simmim.encoders import BeitConfig, Encoder, EncoderConfig, SwinConfig, SwinV2Config, ViTConfig, windows
from simmim.encoders.windows import nested_coordinates, window_places
from simmim.heads import LinearHeadConfig
from simmim.masking import BlockMasking, RandomMasking, SquareMasking
from simmim.model import SimMIM
from simmim.targets import PixelTarget

SWIN: dict[str, Any] = {"patch_size": 2, "embed_dim": 16, "depths": (2, 2, 2), "num_heads": (1, 2, 4), "window": 4}
VIT: dict[str, Any] = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
CASES: dict[str, EncoderConfig] = {
    "swin": SwinConfig(**SWIN),
    "swinv2": SwinV2Config(**SWIN),
    "vit": ViTConfig(name="vit_tiny_patch16_224", **VIT),
    "beit": BeitConfig(**VIT),
}
SIZE = (64, 96)


def _encoder(name: str, visible_blocks: int = 0) -> Encoder:
    torch.manual_seed(0)
    config = CASES[name].model_copy(update={"visible_blocks": visible_blocks})
    encoder = config.build(image_size=SIZE, in_channels=3)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.1)
    return encoder.eval()


def _images(batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def _hidden(encoder: Encoder, *counts: int, side: int = 8) -> Tensor:
    """So many hidden cells of 8 px in each image."""
    rows, columns = SIZE[0] // side, SIZE[1] // side
    generator, masks = torch.Generator().manual_seed(2), []
    for count in counts:
        flat = torch.zeros(rows * columns, dtype=torch.bool)
        flat[torch.randperm(rows * columns, generator=generator)[:count]] = True
        masks.append(flat.view(rows, columns))
    repeat = side // encoder.patch_size
    return torch.stack(masks).repeat_interleave(repeat, dim=1).repeat_interleave(repeat, dim=2)


def _with_mask_token(encoder: Encoder, images: Tensor, hidden: Tensor) -> Tensor:
    token = torch.linspace(-1, 1, encoder.embed_dim)
    return torch.where(hidden[..., None], token, encoder.embed(images))


@pytest.mark.parametrize("name", ["swin", "swinv2"])
def test_gradients_are_those_of_timm(name: str) -> None:
    encoder, images = _encoder(name), _images()
    assert encoder._in_groups  # pyright: ignore[reportAttributeAccessIssue]
    weights = torch.randn(3, encoder.num_features, *(side // encoder.stride for side in SIZE))
    parameters = list(encoder.parameters())
    theirs = encoder.backbone.forward_features(images).permute(0, 3, 1, 2)
    ours = encoder(images)
    for one, other in zip(
        *(torch.autograd.grad((out * weights).sum(), parameters) for out in (ours, theirs)), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item() + 1e-6)


def test_windows_that_must_be_filled_up_are_left_to_timm() -> None:
    encoder = SwinConfig(**{**SWIN, "window": 5}).build(image_size=SIZE, in_channels=3).eval()
    images = _images()
    assert torch.equal(encoder(images), encoder.backbone.forward_features(images).permute(0, 3, 1, 2))


@pytest.mark.parametrize(("window", "nearest"), [(3, 4), (5, 4), (7, 4), (40, 48)])
def test_visible_only_takes_windows_that_fill_the_map(window: int, nearest: int) -> None:
    def build(window: int) -> SimMIM:
        encoder = SwinConfig(**{**SWIN, "window": window}, visible_blocks=2).build(image_size=SIZE, in_channels=3)
        return SimMIM(
            encoder=encoder, head=LinearHeadConfig(), target=PixelTarget().build(mean=(0.5,) * 3, std=(1.0,) * 3)
        )

    with pytest.raises(ValueError, match=rf"do not fill one of \d+x\d+ tokens; take encoder.window={nearest}, or"):
        build(window)
    model = build(nearest)
    images, mask = _images(), _hidden(model.encoder, 40, 40, 40)
    assert model(images, mask).loss.isfinite()


@pytest.mark.parametrize("name", CASES)
def test_where_nothing_is_hidden_visible_only_is_the_dense_encoder(name: str) -> None:
    encoder, images = _encoder(name, visible_blocks=2), _images()
    nothing = torch.zeros(3, *(side // encoder.patch_size for side in SIZE), dtype=torch.bool)
    with torch.no_grad():
        assert torch.allclose(encoder.encode_hidden(encoder.embed(images), nothing), encoder(images), atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_blocks_that_see_visible_tokens_only_are_dense_blocks_in_which_hidden_tokens_have_no_weight(name: str) -> None:
    """The published formula with a mask: attention of every token to hidden ones is put to zero, then all go on densely."""
    blocks = 2 if name in ("vit", "beit") else 3
    encoder, images = _encoder(name, visible_blocks=blocks), _images()
    hidden = _hidden(encoder, 40, 40, 40)
    tokens = _with_mask_token(encoder, images, hidden)
    with torch.no_grad():
        ours = encoder.encode_hidden(tokens, hidden)
        theirs = _dense_with_a_mask(encoder, tokens, hidden, blocks)
    assert torch.allclose(ours, theirs, atol=1e-4)


def _dense_with_a_mask(encoder: Encoder, tokens: Tensor, hidden: Tensor, blocks: int) -> Tensor:
    """timm's own blocks on the whole map; before each, hidden tokens get keys that nobody looks at."""
    if hasattr(encoder.backbone, "layers"):
        return _dense_swin(encoder, tokens, hidden, blocks)
    backbone, begin = encoder.backbone, encoder._begin(tokens)  # pyright: ignore[reportAttributeAccessIssue]
    flat = nn.functional.pad(hidden.flatten(1), (1, 0))
    apart = torch.zeros(flat.shape).masked_fill(flat, float("-inf"))[:, None, None, :]
    row, beit = begin, hasattr(backbone, "rel_pos_bias")
    for number, block in enumerate(backbone.blocks):
        bias = backbone.rel_pos_bias() if beit else torch.zeros(())
        if number < blocks:
            through = (
                block(row, shared_rel_pos_bias=bias + apart)
                if beit
                else block(row, attn_mask=apart.expand(-1, -1, flat.shape[1], -1))
            )
            row = torch.where(flat[..., None], begin, through)
        else:
            row = block(row, shared_rel_pos_bias=bias) if beit else block(row)
    return encoder.to_map(backbone.norm(row))  # pyright: ignore[reportAttributeAccessIssue]


def _dense_swin(encoder: Encoder, x: Tensor, hidden: Tensor, blocks: int) -> Tensor:
    number, hidden = 0, hidden.clone()
    for layer in encoder.backbone.layers:
        x = layer.downsample(x)
        while hidden.shape[1] > x.shape[1]:
            hidden = hidden[:, ::2, ::2]
        for block in layer.blocks:
            through = _block_with_a_mask(block, x, hidden) if number < blocks else block(x)
            x = torch.where(hidden[..., None], x, through) if number < blocks else through
            number += 1
    return encoder.backbone.norm(x).permute(0, 3, 1, 2)


def _block_with_a_mask(block: Any, x: Tensor, hidden: Tensor) -> Tensor:
    """The block image by image, with a mask of its own in the place of the shifted windows' mask."""
    from timm.models.swin_transformer import window_partition

    before, answers = block.attn_mask, []
    for image, its in zip(x, hidden, strict=True):
        rolled = its.float()[None, :, :, None].roll((-block.shift_size[0], -block.shift_size[1]), (1, 2))
        keys = window_partition(rolled, block.window_size).view(-1, 1, block.window_area)
        mask = (keys * -1e9).expand(-1, block.window_area, -1)
        block.attn_mask = mask if before is None else mask + before
        answers.append(block(image[None]))
    block.attn_mask = before
    return torch.cat(answers)


@pytest.mark.parametrize("name", CASES)
def test_images_with_unequal_numbers_of_hidden_tokens_do_not_disturb_each_other(name: str) -> None:
    encoder, images = _encoder(name, visible_blocks=2), _images()
    hidden = _hidden(encoder, 10, 60, 96)
    tokens = _with_mask_token(encoder, images, hidden)
    tokens[2] = tokens[2].where(hidden[2][..., None], 0)
    with torch.no_grad():
        together = encoder.encode_hidden(tokens, hidden)
        for number in range(2):
            alone = encoder.encode_hidden(tokens[number : number + 1], hidden[number : number + 1])
            assert torch.allclose(together[number : number + 1], alone, atol=1e-4)
    assert together.isfinite().all()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "masking",
    [RandomMasking(mask_patch=8), RandomMasking(mask_patch=16), SquareMasking(), BlockMasking(mask_patch=8)],
    ids=str,
)
def test_every_kind_of_mask_trains_and_every_weight_has_a_gradient(name: str, masking: Any) -> None:
    encoder = _encoder(name, visible_blocks=2).train()
    model = SimMIM(
        encoder=encoder, head=LinearHeadConfig(), target=PixelTarget().build(mean=(0.0,) * 3, std=(1.0,) * 3)
    )
    generator = torch.Generator().manual_seed(0)
    mask = masking(3, image_size=SIZE, patch_size=encoder.patch_size, generator=generator)
    model(_images(), mask).loss.backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []


def _giant(**settings: Any) -> Encoder:
    torch.manual_seed(0)
    config = SwinV2Config(name="swinv2_giant_window12_192", extra_norm_every=2, **SWIN, **settings)
    return config.build(image_size=SIZE, in_channels=3)


@pytest.mark.parametrize("name", [*CASES, "giant", "giant that takes few windows at once"])
def test_computing_blocks_again_changes_not_one_bit_of_a_gradient_and_keeps_less(name: str) -> None:
    gradients, kept = list[list[Tensor]](), dict[str, int]()
    for how in ("none", "selective", "blocks"):
        encoder = (_encoder(name) if name in CASES else _giant(sequential_stages=len(name) // 10)).train()
        encoder.checkpoint_blocks(how)
        for each in encoder.modules():
            if type(each).__name__ == "DropPath":
                each.drop_prob = 0.3  # type: ignore[assignment]
        torch.manual_seed(3)
        kept[how] = 0
        watch = torch.autograd.graph.saved_tensors_hooks(partial(_count, kept, how), lambda tensor: tensor)
        with nullcontext() if how == "selective" else watch:  # torch warns that it passes by
            answer = encoder(_images())
        answer.square().sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters() if parameter.grad is not None])
    assert len(gradients[0]) > 10
    for other in gradients[1:]:
        assert all(torch.equal(one, same) for one, same in zip(gradients[0], other, strict=True))
    assert kept["blocks"] < kept["none"] / 2


@pytest.mark.parametrize("visible_blocks", [0, 1, 3])
def test_a_few_windows_at_a_time_is_the_same_function(visible_blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, attend = list[int](), windows._attend_v2

    def watch(attention: Any, x: Tensor, groups: Any) -> Tensor:
        asked.append(x.shape[1] // groups.slots)
        return attend(attention, x, groups)

    monkeypatch.setattr(windows, "_attend_v2", watch)
    found = []
    for stages in (0, 2):
        encoder = _giant(sequential_stages=stages, visible_blocks=visible_blocks).train()
        for parameter in encoder.parameters():
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
        hidden = _hidden(encoder, 60, 40, 50)
        asked.clear()
        answer = encoder.encode_hidden(_with_mask_token(encoder, _images(), hidden), hidden)
        most = max(asked)
        answer.square().sum().backward()
        gradients = [each.grad for each in encoder.parameters() if each.grad is not None]
        found.append((answer, gradients, most))
    assert found[0][2] > 16 >= found[1][2]
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5 * float(one.abs().max()))


def _count(kept: dict[str, int], how: str, tensor: Tensor) -> Tensor:
    kept[how] += tensor.numel()
    return tensor


@pytest.mark.parametrize("name", CASES)
def test_selective_checkpointing_does_no_linear_layer_twice(name: str) -> None:
    counts = {}
    for how in ("none", "selective", "blocks"):
        encoder = _encoder(name).train()
        encoder.checkpoint_blocks(how)
        with Counter() as counter:
            encoder(_images()).square().sum().backward()
        counts[how] = counter.linear
    assert counts["none"] == counts["selective"] < counts["blocks"]


class Counter(TorchDispatchMode):
    """Counts matrix products of linear layers."""

    linear = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), more: Any = None) -> Any:
        self.linear += function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
        return function(*arguments, **(more or {}))


@pytest.mark.parametrize(("name", "most"), [("swin", 5), ("vit", 2), ("beit", 2)])
def test_one_block_must_see_the_hidden_tokens(name: str, most: int) -> None:
    _encoder(name, visible_blocks=most)
    with pytest.raises(ValueError, match=f"the most is {most}"):
        _encoder(name, visible_blocks=most + 1)


def test_weights_are_the_same_with_and_without() -> None:
    for name in CASES:
        assert _encoder(name).state_dict().keys() == _encoder(name, visible_blocks=2).state_dict().keys()


def test_four_tokens_that_follow_each_other_are_merged() -> None:
    found = nested_coordinates((2, 3), doublings=2).view(6, 4, 4, 2)
    assert sorted(map(tuple, found.reshape(-1, 2).tolist())) == [(r, c) for r in range(8) for c in range(12)]
    assert torch.equal(found // 2, (found // 2)[:, :, :1].expand_as(found))  # one pair of a coarser map
    assert torch.equal(found[..., 0, :] // 4, found[:, :1, 0, :].expand(-1, 4, -1) // 4)


def test_a_shifted_window_keeps_the_ends_of_the_map_apart() -> None:
    place = window_places(nested_coordinates((8, 8), doublings=0), (8, 8), window=(4, 4), shift=(2, 2))
    corner = [int(place.window[row * 8 + column]) for row in (0, 7) for column in (0, 7)]
    parts = {int(place.part[row * 8 + column]) for row in (0, 7) for column in (0, 7)}
    assert corner == [3, 3, 3, 3]  # the last window holds all four corners of the map
    assert len(parts) == 4
