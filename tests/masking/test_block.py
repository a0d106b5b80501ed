"""Block-wise masking, against the published procedure one image at a time."""

import math
import random

import pytest
import torch

from reference.beit_blocks import beit_mask
from simmim.masking import BlockMasking, average_distance


def _draw(
    masking: BlockMasking, *, batch: int = 300, size: tuple[int, int] = (192, 192), patch: int = 16
) -> torch.Tensor:
    return masking(batch, image_size=size, patch_size=patch, generator=torch.Generator().manual_seed(0))


def _reference(rows: int, columns: int, hidden: int, smallest: float, *, count: int) -> torch.Tensor:
    draw = random.Random(0)
    return torch.tensor([beit_mask(rows, columns, hidden, smallest, draw) for _ in range(count)])


@pytest.mark.parametrize("ratio", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("mask_patch", [16, 32])
@pytest.mark.parametrize("size", [(192, 192), (96, 160), (224, 160)])
def test_the_count_is_exact_in_every_image(ratio: float, mask_patch: int, size: tuple[int, int]) -> None:
    mask = _draw(BlockMasking(ratio=ratio, mask_patch=mask_patch), size=size)
    cells = size[0] * size[1] // mask_patch**2
    assert set(mask.flatten(1).sum(dim=1).tolist()) == {math.ceil(cells * ratio - 1e-9) * (mask_patch // 16) ** 2}


@pytest.mark.parametrize("ratio", [0.4, 0.6, 0.8])
def test_without_exactness_counts_and_distances_are_those_of_the_published_procedure(ratio: float) -> None:
    hidden = math.ceil(144 * ratio)
    ours = _draw(BlockMasking(ratio=ratio, exact=False, min_block=64), batch=600)
    theirs = _reference(12, 12, hidden, 16, count=600)
    short = [(mask.flatten(1).sum(dim=1) < hidden).float().mean().item() for mask in (ours, theirs)]
    assert short[0] == pytest.approx(short[1], abs=0.08)
    counts = [mask.flatten(1).sum(dim=1).float().mean().item() for mask in (ours, theirs)]
    assert counts[0] == pytest.approx(counts[1], rel=0.01)
    distances = [average_distance(mask, patch_size=16) for mask in (ours[:200], theirs[:200])]
    assert distances[0] == pytest.approx(distances[1], rel=0.08)


def test_every_place_is_hidden_about_as_often_as_in_the_published_procedure() -> None:
    ours = _draw(BlockMasking(ratio=0.4, exact=False, min_block=64), batch=1500).float().mean(dim=0)
    theirs = _reference(12, 12, 58, 16, count=1500).float().mean(dim=0)
    assert (ours - theirs).abs().max() < 0.08  # a binomial share of 1500 draws strays by less than five times 0.013


@pytest.mark.parametrize(
    ("mask_patch", "ratio", "low", "high"), [(16, 0.4, 16, 18), (16, 0.6, 22, 27), (16, 0.8, 32, 35)]
)
def test_distances_lie_where_they_were_seen(mask_patch: int, ratio: float, low: float, high: float) -> None:
    assert low <= average_distance(_draw(BlockMasking(ratio=ratio, mask_patch=mask_patch)), patch_size=16) <= high


def test_a_block_is_one_region_and_not_scattered_cells() -> None:
    from scipy.ndimage import label

    regions = [label(tokens.numpy())[1] for tokens in _draw(BlockMasking(ratio=0.6))]
    assert sum(regions) / len(regions) < 5


def test_hiding_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="hides all 36 cells of 32 px"):
        _draw(BlockMasking(ratio=0.99, mask_patch=32))
