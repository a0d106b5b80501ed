import numpy as np
import pytest
import torch
from scipy.stats import chi2

from reference.masks import cells_of, hidden_cells
from simmim.masking import RandomMasking
from simmim.units import Size


def draw(masking: RandomMasking, batch: int, size: Size, patch_size: int = 4, seed: int = 0) -> torch.Tensor:
    return masking(batch, image_size=size, patch_size=patch_size, generator=torch.Generator().manual_seed(seed))


PUBLISHED = [  # specification B1
    (192, ".1", 4),
    (192, ".2", 8),
    (192, ".3", 11),
    (192, ".4", 15),
    (192, ".5", 18),
    (192, ".6", 22),
    (192, ".7", 26),
    (192, ".8", 29),
    (192, ".9", 33),
    (224, ".6", 30),
]


@pytest.mark.parametrize(("side", "ratio", "hidden"), PUBLISHED)
def test_as_many_cells_are_hidden_as_published(side: int, ratio: str, hidden: int) -> None:
    masks = draw(RandomMasking(ratio=float(ratio)), 5, (side, side), patch_size=16)
    assert masks.dtype == torch.bool
    assert masks.shape == (5, side // 16, side // 16)
    assert masks.sum(dim=(1, 2)).tolist() == [hidden * 4] * 5
    assert hidden_cells((side // 32) ** 2, ratio) == hidden


@pytest.mark.parametrize("percent", range(1, 100))
def test_hidden_count_is_exact_in_every_image_where_floating_point_is_not(percent: int) -> None:
    masks = draw(RandomMasking(ratio=percent / 100, mask_patch=4), 2, (40, 40))  # 0.55 * 100 is 55.000000000000007
    assert masks.sum(dim=(1, 2)).tolist() == [percent, percent]


@pytest.mark.parametrize("size", [(64, 64), (64, 160), (96, 32), (32, 224)])
@pytest.mark.parametrize("patch_size", [4, 8, 16, 32])
def test_whole_cells_of_the_mask_patch_are_hidden_at_any_size(size: Size, patch_size: int) -> None:
    masks = draw(RandomMasking(ratio=0.4), 3, size, patch_size)
    assert masks.shape == (3, size[0] // patch_size, size[1] // patch_size)
    cells = size[0] // 32 * (size[1] // 32)
    for mask in masks.numpy():
        assert cells_of(mask, 32 // patch_size).sum() == hidden_cells(cells, "0.4")


def test_every_cell_is_hidden_equally_often() -> None:
    draws, hidden = 4000, 15
    masks = draw(RandomMasking(ratio=0.4), draws, (192, 192), patch_size=32, seed=1).numpy()
    counts = masks.sum(axis=0)
    share = hidden / 36
    # Without replacement the counts sum to a constant: the statistic is that of chi-square with 35 degrees of freedom.
    statistic = ((counts - draws * share) ** 2).sum() / (draws * share * (1 - share)) * 35 / 36
    assert chi2.ppf(0.0005, 35) < statistic < chi2.ppf(0.9995, 35)


def test_two_cells_are_hidden_together_as_often_as_chance_has_it() -> None:
    draws = 4000
    flat = draw(RandomMasking(ratio=0.5), draws, (64, 64), patch_size=16, seed=2).numpy()[:, ::2, ::2].reshape(draws, 4)
    together = flat.astype(float).T @ flat / draws
    expected = 2 / 4 * 1 / 3  # two of four cells
    off_diagonal = together[~np.eye(4, dtype=bool)]
    assert np.abs(off_diagonal - expected).max() < 4 * (expected * (1 - expected) / draws) ** 0.5


def test_the_same_generator_gives_the_same_mask_and_another_seed_another() -> None:
    first = draw(RandomMasking(), 4, (192, 192), seed=3)
    torch.manual_seed(99)  # the global stream has no say
    assert torch.equal(draw(RandomMasking(), 4, (192, 192), seed=3), first)
    assert not torch.equal(draw(RandomMasking(), 4, (192, 192), seed=4), first)


def test_drawing_does_not_move_the_global_stream() -> None:
    torch.manual_seed(5)
    alone = torch.rand(3)
    torch.manual_seed(5)
    draw(RandomMasking(), 4, (192, 192))
    assert torch.equal(torch.rand(3), alone)


def test_every_image_of_a_batch_has_a_mask_of_its_own() -> None:
    masks = draw(RandomMasking(), 16, (192, 192))
    assert len({mask.numpy().tobytes() for mask in masks}) == 16


@pytest.mark.parametrize(
    ("masking", "size", "patch_size", "said"),
    [
        (
            RandomMasking(mask_patch=30),
            (192, 192),
            4,
            ["mask_patch=30 px", "multiple of the model patch 4 px", "28 or 32"],
        ),
        (RandomMasking(mask_patch=8), (192, 192), 16, ["mask_patch=8 px", "model patch 16 px", "nearest: 16"]),
        (RandomMasking(), (200, 192), 4, ["height 200 px", "multiple of mask patch 32 px", "192 or 224"]),
        (RandomMasking(), (192, 210), 4, ["width 210 px", "multiple of mask patch 32 px", "192 or 224"]),
        (RandomMasking(), (192, 16), 4, ["width 16 px", "nearest: 32"]),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_nearest_that_do(
    masking: RandomMasking, size: Size, patch_size: int, said: list[str]
) -> None:
    with pytest.raises(ValueError, match="not a multiple") as caught:
        draw(masking, 1, size, patch_size)
    assert [words for words in said if words not in str(caught.value)] == []


def test_hiding_everything_is_refused() -> None:
    with pytest.raises(ValueError, match=r"masking\.ratio=0\.9 hides all 4 cells of 32 px"):
        draw(RandomMasking(ratio=0.9), 1, (64, 64))
    with pytest.raises(ValueError, match="hides all 1 cells"):
        draw(RandomMasking(ratio=0.1), 1, (32, 32))


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_ratio_outside_of_0_and_1_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        RandomMasking(ratio=ratio)


@pytest.mark.parametrize("mask_patch", [0, -32])
def test_a_mask_patch_without_pixels_is_refused(mask_patch: int) -> None:
    with pytest.raises(ValueError, match="mask_patch"):
        RandomMasking(mask_patch=mask_patch)
