import numpy as np
import pytest
import torch

from simmim.report import Row, draw_rows, print_table, to_rgb


def bounds(channels: int, low: float, high: float) -> dict[str, torch.Tensor]:
    return {"low": torch.full((1, channels), low), "high": torch.full((1, channels), high)}


def test_one_channel_is_grey() -> None:
    images = torch.tensor([-1.0, 0.0, 1.0, 3.0, 5.0]).reshape(1, 1, 1, 5)
    shown = to_rgb(images, **bounds(1, -1.0, 3.0))
    assert shown.shape == (1, 3, 1, 5)
    assert torch.allclose(shown, torch.tensor([0.0, 0.25, 0.5, 1.0, 1.0]).expand(1, 3, 1, 5))


def test_two_channels_are_red_and_green() -> None:
    images = torch.rand(2, 2, 3, 4)
    shown = to_rgb(images, low=torch.zeros(2, 2), high=torch.ones(2, 2))
    assert torch.equal(shown[:, :2], images)
    assert shown[:, 2].abs().max() == 0


@pytest.mark.parametrize("channels", [3, 4, 13])
def test_of_more_channels_the_first_three_are_shown(channels: int) -> None:
    images = torch.rand(2, channels, 3, 4)
    assert torch.equal(to_rgb(images, low=torch.zeros(2, channels), high=torch.ones(2, channels)), images[:, :3])


def test_every_image_and_channel_has_its_own_black_and_white() -> None:
    images = torch.full((2, 3, 1, 1), 10.0)
    low, high = (
        torch.tensor([[0.0, 10.0, 5.0], [9.0, -10.0, 10.0]]),
        torch.tensor([[20.0, 20.0, 10.0], [13.0, 30.0, 11.0]]),
    )
    assert torch.allclose(
        to_rgb(images, low=low, high=high)[:, :, 0, 0], torch.tensor([[0.5, 0.0, 1.0], [0.25, 0.5, 0.0]])
    )


def test_a_channel_that_is_the_same_everywhere_is_shown_without_a_division_by_nothing() -> None:
    assert to_rgb(torch.full((1, 3, 2, 2), 4.0), **bounds(3, 4.0, 4.0)).isfinite().all()


def panel(colour: tuple[float, float, float], height: int, width: int) -> torch.Tensor:
    return torch.tensor(colour)[:, None, None].expand(3, height, width).clone()


RED, GREEN, BLUE, GREY = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("height", "width", "scale"), [(200, 160, 1), (144, 300, 1), (72, 100, 2), (20, 10, 15)])
@pytest.mark.parametrize("note", ["", "step 5"])
def test_panels_lie_in_a_grid_below_their_titles(height: int, width: int, scale: int, note: str) -> None:
    colours = [[RED, GREEN, BLUE], [GREY, BLUE, RED]]
    rows = [Row([panel(colour, height, width) for colour in row]) for row in colours]
    picture = draw_rows(rows, titles=["original", "masked", "predicted"], note=note)
    pixels = np.array(picture)
    cell_height, cell_width = height * scale, width * scale
    assert picture.width == 8 + 3 * (cell_width + 8)
    assert picture.height == 26 + 2 * (cell_height + 8) + (26 if note else 0)
    for row_number, row in enumerate(colours):
        for column, colour in enumerate(row):
            top, left = 26 + row_number * (cell_height + 8), 8 + column * (cell_width + 8)
            cell = pixels[top : top + cell_height, left : left + cell_width]
            assert (cell == np.round(np.array(colour) * 255)).all()
            assert (pixels[top + cell_height, left : left + cell_width] == 255).all()  # paper below
            assert (pixels[top : top + cell_height, left - 1] == 255).all()  # and beside
    assert (pixels[:26] < 128).any()  # titles
    assert (pixels[26 + 2 * (cell_height + 8) :] < 128).any() == bool(note)


def test_a_small_image_is_enlarged_pixel_by_pixel() -> None:
    image = torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(0))
    pixels = np.array(draw_rows([Row([image])], titles=["x"]))
    scale = 9  # the least whole factor that makes the shorter side 144
    cell = pixels[26 : 26 + 16 * scale, 8 : 8 + 24 * scale]
    expected = np.round(image.permute(1, 2, 0).numpy() * 255)
    assert np.abs(cell - np.kron(expected, np.ones((scale, scale, 1)))).max() <= 1


def test_values_beyond_black_and_white_are_cut() -> None:
    image = torch.tensor([-3.0, 7.0]).reshape(1, 1, 2).expand(3, 144, 2).repeat_interleave(72, dim=2)
    pixels = np.array(draw_rows([Row([image])], titles=["x"]))
    assert pixels[100, 8].tolist() == [0, 0, 0]
    assert pixels[100, 8 + 143].tolist() == [255, 255, 255]


def test_a_table_shows_every_word_of_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["recipe", "accuracy"], [["tiny", "81.7 %"], ["demo", "9.0 %"]], title="results")
    lines = capsys.readouterr().out.splitlines()
    (tiny,) = [line for line in lines if "tiny" in line]
    (demo,) = [line for line in lines if "demo" in line]
    assert "results" in lines[0]
    assert tiny.index("81.7 %") + 6 == demo.index("9.0 %") + 5  # numbers stand flush right
