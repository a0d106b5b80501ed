import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from simmim.config import load
from simmim.data import Box, CentreCrop, DataConfig, RandomCrop, open_image, render
from simmim.data.array import array_image
from simmim.data.transforms import resize
from simmim.seeds import stream

SIDES = st.integers(1, 3000)


def boxes(view: RandomCrop | CentreCrop, height: int, width: int, *, count: int = 4000) -> np.ndarray[Any, Any]:
    return np.array([view.box(height, width, size=(64, 64), generator=stream(0, "crop", 0, i)) for i in range(count)])


@pytest.mark.parametrize(("height", "width"), [(100, 100), (375, 500), (60, 200), (10, 400)])
@pytest.mark.parametrize("scale", [(0.67, 1.0), (0.08, 1.0)])
def test_random_crops_are_distributed_as_those_of_torchvision(
    height: int, width: int, scale: tuple[float, float]
) -> None:
    ours = boxes(RandomCrop(scale=scale), height, width)
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(4000)])
    for column in range(4):
        # Kolmogorov-Smirnov distance of two samples of 4000; 0.044 has a chance of 0.1 %.
        values = np.union1d(ours[:, column], theirs[:, column])
        steps = [np.searchsorted(np.sort(sample[:, column]), values, "right") / 4000 for sample in (ours, theirs)]
        assert np.abs(steps[0] - steps[1]).max() < 0.044
    assert abs(ours[:, 4].mean() - 0.5) < 0.03


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**32))
def test_boxes_lie_inside_the_image(height: int, width: int, rows: int, columns: int, seed: int) -> None:
    for view in (RandomCrop(), RandomCrop(scale=(0.01, 0.02)), CentreCrop(), CentreCrop(resize=1.5)):
        box = view.box(height, width, size=(rows, columns), generator=stream(seed))
        assert 0 <= box.top < box.top + box.height <= height
        assert 0 <= box.left < box.left + box.width <= width


def test_crops_follow_the_aspect_of_the_target() -> None:
    drawn = [RandomCrop().box(1000, 1000, size=(100, 200), generator=stream(i)) for i in range(200)]
    fallback = Box(250, 0, 500, 1000)  # 2:1 crops of two thirds of a square do not fit: the widest ratio below is 1.5
    ratios = {box.width / box.height for box in drawn}
    assert all(1.49 < ratio < 2.67 for ratio in ratios)
    assert CentreCrop().box(1000, 1000, size=(100, 200), generator=stream(0)) == fallback
    assert CentreCrop(resize=2).box(1000, 1000, size=(100, 200), generator=stream(0)) == Box(375, 250, 250, 500)


def test_the_centre_crop_is_that_of_the_usual_evaluation(photo: Any) -> None:
    pixels = photo(375, 500)
    box = CentreCrop(resize=256 / 224).box(375, 500, size=(224, 224), generator=stream(0))
    ours = render(array_image(pixels), box=box, size=(224, 224))
    whole = tv.resize(torch.from_numpy(pixels).permute(2, 0, 1), [256], antialias=True)
    expected = tv.center_crop(whole, [224, 224])
    assert (ours.float() - expected.float()).abs().mean() < 1


def test_rendering_is_cropping_resizing_and_mirroring(photo: Any) -> None:
    pixels = photo(90, 120)
    box = Box(10, 20, 60, 80, flip=True)
    ours = render(array_image(pixels), box=box, size=(30, 40))
    assert ours.dtype == torch.uint8
    expected = Image.fromarray(pixels[10:70, 20:100]).resize((40, 30), Image.Resampling.BILINEAR)
    expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - np.array(expected)).max() <= 1


@pytest.mark.parametrize("shape", [(375, 500, 3), (60, 60, 1), (9, 200, 4), (48, 48, 3)])
def test_resizing_is_that_of_torchvision(shape: tuple[int, int, int], photo: Any) -> None:
    height, width, _channels = shape
    pixels = torch.from_numpy(np.resize(photo(height, width), shape)).permute(2, 0, 1)
    for each in (pixels, pixels[:, 1 : height - 2, 3 : width - 1], pixels.float() / 255):
        expected = tv.resize(each, [48, 48], antialias=True)
        assert torch.equal(resize(each, (48, 48)), expected)


def test_rendering_from_a_small_decoding_is_nearly_the_same(photo: Any) -> None:
    stream_of = io.BytesIO()
    Image.fromarray(photo(1200, 1600)).save(stream_of, "JPEG", quality=95)
    data = stream_of.getvalue()
    sizes: list[tuple[int, ...]] = []
    for box in (Box(101, 203, 900, 1200), Box(0, 0, 1200, 1600), Box(7, 3, 401, 399, flip=True)):
        small = render(open_image(data), box=box, size=(96, 96))
        sizes.append(tuple(small.shape))
        full = render(array_image(open_image(data).pixels().permute(1, 2, 0).numpy()), box=box, size=(96, 96))
        assert (small.float() - full.float()).abs().max() <= 6
        assert (small.float() - full.float()).abs().mean() < 1
    assert sizes == [(3, 96, 96)] * 3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (20_000, 40)])
def test_tiny_and_long_images_are_rendered(height: int, width: int) -> None:
    image = array_image(np.full((height, width, 3), 9, np.uint8))
    for view in (RandomCrop(), CentreCrop()):
        box = view.box(height, width, size=(32, 48), generator=stream(0))
        pixels = render(image, box=box, size=(32, 48))
        assert tuple(pixels.shape) == (3, 32, 48)
        assert (pixels == 9).all()


def test_the_data_block_of_a_recipe() -> None:
    data = load(DataConfig, {"image_size": "192 px", "view": {"scale": [0.2, 1]}})
    assert data.view == RandomCrop(scale=(0.2, 1.0))
    assert math.isclose(RandomCrop().ratio[1], 4 / 3)
    assert isinstance(load(DataConfig, {"image_size": "96x160 px", "view": {"kind": "centre_crop"}}).view, CentreCrop)
    for wrong in ({"scale": [1, 0.2]}, {"scale": [0, 1]}, {"ratio": [2, 1]}):
        with pytest.raises(ValueError, match="is not a range; allowed: 0 < low <= high"):
            load(DataConfig, {"image_size": "192 px", "view": wrong})
