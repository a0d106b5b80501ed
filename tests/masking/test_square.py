"""One square at a random place."""

import pytest
import torch

from simmim.masking import SquareMasking


def _draw(
    masking: SquareMasking, *, batch: int = 500, size: tuple[int, int] = (192, 192), patch: int = 4
) -> torch.Tensor:
    return masking(batch, image_size=size, patch_size=patch, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("ratio", "pixels"), [(0.11, 64), (0.25, 96), (0.44, 128)])
@pytest.mark.parametrize("aligned", [True, False])
def test_the_papers_ratios_are_its_squares_of_64_96_and_128_px(ratio: float, pixels: int, aligned: bool) -> None:
    mask = _draw(SquareMasking(ratio=ratio, aligned=aligned))
    for tokens in mask[:50]:
        rows, columns = (tokens.any(dim=axis).nonzero().flatten() for axis in (1, 0))
        assert (len(rows), len(columns)) == (pixels // 4, pixels // 4)
        assert rows[-1] - rows[0] == columns[-1] - columns[0] == pixels // 4 - 1
        assert int(tokens.sum()) == (pixels // 4) ** 2


def test_an_aligned_square_lies_on_the_cells_and_reaches_every_place() -> None:
    corners = {tuple(tokens.nonzero()[0].tolist()) for tokens in _draw(SquareMasking(ratio=0.25))}
    assert corners == {(row, column) for row in (0, 8, 16, 24) for column in (0, 8, 16, 24)}


def test_a_free_square_lies_at_any_token() -> None:
    corners = torch.stack(
        [tokens.nonzero()[0] for tokens in _draw(SquareMasking(ratio=0.25, aligned=False), batch=2000)]
    )
    assert set(corners[:, 0].tolist()) == set(corners[:, 1].tolist()) == set(range(25))


def test_an_image_need_not_be_square() -> None:
    mask = _draw(SquareMasking(ratio=0.2, mask_patch=16), size=(96, 160), patch=8)
    assert mask.shape == (500, 12, 20)
    assert set(mask.flatten(1).sum(dim=1).tolist()) == {4 * 3 * 3}


@pytest.mark.parametrize("ratio", [0.9, 0.99])
def test_something_must_stay_visible(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"square of 6x6 cells of 32 px.*at most 0\.69"):
        _draw(SquareMasking(ratio=ratio))


def test_a_square_wider_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has 2x10 of them.*at most 0\.20"):
        _draw(SquareMasking(ratio=0.5), size=(64, 320))
