"""Augmentation is timm's, and a pure function of seed, epoch, index and step."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import rand_augment_transform
from torchvision import transforms as v1
from torchvision.transforms.functional import pil_to_tensor

from simmim.config import load
from simmim.data import Appearance, AugmentConfig, BatchAugment, CentreCrop, RandAugment
from simmim.data.array import array_image

POLICY = "rand-m9-mstd0.5-inc1"
MEAN = (0.485, 0.456, 0.406)


def picture(seed: int, height: int = 40, width: int = 48) -> torch.Tensor:
    low = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    smooth = Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC)
    return pil_to_tensor(smooth)


def global_draws() -> tuple[Any, ...]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


# ------------------------------------------------------------------------------------------------------------- RandAugment


def posterize_of_older_pillow(image: Image.Image, bits: int) -> Image.Image:
    """Which allowed 0 bits."""
    return image.point([value & ~(2 ** (8 - bits) - 1) for value in range(256)] * 3)


def test_rand_augment_is_that_of_timm_begun_at_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = RandAugment(POLICY, (40, 48), MEAN, "bicubic")
    theirs = rand_augment_transform(
        POLICY,
        {"translate_const": 18, "img_mean": (124, 116, 104), "interpolation": Image.Resampling.BICUBIC},
    )
    changed = 0
    for seed in range(100):
        pixels = picture(seed)
        random.seed(seed)
        np.random.seed(seed)
        with monkeypatch.context() as patch:
            patch.setattr(ImageOps, "posterize", posterize_of_older_pillow)
            expected = pil_to_tensor(theirs(Image.fromarray(pixels.permute(1, 2, 0).numpy())))
        found = ours(pixels, seed=seed)
        assert found.dtype == torch.uint8
        assert torch.equal(found, expected)
        changed += not torch.equal(found, pixels)
    assert changed > 50, "it hardly ever does anything, so the comparison shows little"


def test_rand_augment_neither_sees_nor_moves_what_others_draw() -> None:
    ours = RandAugment(POLICY, (40, 48), MEAN, "bicubic")
    seed_all(1)
    undisturbed = [global_draws(), global_draws()]
    first = ours(picture(0), seed=5)
    seed_all(1)
    drawn = [global_draws()]
    again = ours(picture(0), seed=5)
    drawn.append(global_draws())
    assert drawn == undisturbed
    assert torch.equal(first, again)
    assert any(not torch.equal(first, ours(picture(0), seed=seed)) for seed in (6, 7, 8))


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (torch.zeros(1, 8, 8, dtype=torch.uint8), "1 of 8 bit"),
        (torch.zeros(3, 8, 8), "3 of more than 8 bit"),
        (torch.zeros(5, 8, 8), "5 of more than 8 bit"),
    ],
)
def test_other_images_are_refused_with_the_setting_that_helps(pixels: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=rf"{said}.*augment.rand_augment=null"):
        RandAugment(POLICY, (8, 8), MEAN, "bicubic")(pixels, seed=0)


@pytest.mark.parametrize("policy", ["m9", "original", "rand-z4"])
def test_a_policy_that_timm_does_not_know_is_refused(policy: str) -> None:
    with pytest.raises(ValueError, match=r"such as rand-m9-mstd0\.5-inc1"):
        load(AugmentConfig, {"rand_augment": policy})


# ----------------------------------------------------------------------------------------------------- erasing and mixing


def batch_augment(**settings: Any) -> BatchAugment:
    return BatchAugment(load(AugmentConfig, settings), classes=4, label_smoothing=0.1, seed=3)


def test_erasing_depends_on_epoch_and_index_and_not_on_the_place_in_the_batch() -> None:
    augment = batch_augment(erasing=0.25)
    whole = augment.erase(torch.full((400, 2, 16, 16), 9.0), epoch=1, indices=list(range(400)))
    part = augment.erase(torch.full((3, 2, 16, 16), 9.0), epoch=1, indices=[250, 7, 90])
    assert torch.equal(part, whole[[250, 7, 90]])
    other = augment.erase(torch.full((400, 2, 16, 16), 9.0), epoch=2, indices=list(range(400)))
    assert not torch.equal(other, whole)
    touched = (whole != 9.0).flatten(1).any(dim=1)
    assert 0.18 < float(touched.float().mean()) < 0.32
    noise = whole[whole != 9.0]
    assert abs(float(noise.mean())) < 0.1
    assert float(noise.std()) == pytest.approx(1, abs=0.1)
    boxes = (whole != 9.0).all(dim=1)[touched]
    for box in boxes:
        rows, columns = box.any(dim=1).sum(), box.any(dim=0).sum()
        assert int(box.sum()) == int(rows * columns), "one rectangle"


def images_and_labels(count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.arange(count) % 4


def test_images_are_mixed_the_same_however_the_batch_is_parted() -> None:
    augment = batch_augment(mixup=0.8, cutmix=1.0, mixed_together="4 images")
    images, labels = images_and_labels()
    whole = augment.mix(images.clone(), labels, step=5, first=32)
    parts = [
        augment.mix(images[start : start + 8].clone(), labels[start : start + 8], step=5, first=32 + start)
        for start in (0, 8)
    ]
    for number in (0, 1):
        assert torch.equal(whole[number], torch.cat([part[number] for part in parts]))
    assert not torch.equal(whole[0], augment.mix(images.clone(), labels, step=6, first=32)[0])


def test_what_is_wanted_of_mixed_images_is_their_true_mixture() -> None:
    """Mixup by its formula, CutMix by counting pixels; the share is read off what is wanted."""
    images, _ = images_and_labels(4)
    labels = torch.arange(4)
    kinds = set[str]()
    for step in range(40):
        augment = batch_augment(mixup=0.8, cutmix=1.0, mixed_together="4 images")
        mixed, wanted = augment.mix(images.clone(), labels, step=step, first=0)
        assert torch.allclose(wanted.sum(dim=1), torch.ones(4))
        share = (float(wanted[0, 0]) - 0.025) / 0.9
        own = torch.nn.functional.one_hot(labels, 4).float()
        expected = 0.9 * (share * own + (1 - share) * own.flip(0)) + 0.025
        assert torch.allclose(wanted, expected, atol=1e-6)
        pasted = (mixed == images.flip(0)).all(dim=1)
        kept = (mixed == images).all(dim=1)
        if (pasted | kept).all():
            kinds.add("cutmix")
            assert share == pytest.approx(float(kept[0].float().mean()), abs=1e-6)
        else:
            kinds.add("mixup")
            assert torch.allclose(mixed, share * images + (1 - share) * images.flip(0), atol=1e-5)
    assert kinds == {"mixup", "cutmix"}


def test_without_mixing_labels_stay_labels() -> None:
    images, labels = images_and_labels()
    assert batch_augment(erasing=0.5).mix(images, labels, step=0, first=0) == (images, labels)


def test_a_batch_in_which_the_mixed_do_not_stay_together_is_refused_with_a_number_that_fits() -> None:
    augment = batch_augment(mixup=0.8)  # 128 images together
    augment.check(batch=2048, micro_batch=128, world=16)
    augment.check(batch=256, micro_batch=None, world=2)
    with pytest.raises(ValueError, match=r"augment\.mixed_together='32 images'"):
        augment.check(batch=2048, micro_batch=32, world=8)
    with pytest.raises(ValueError, match=r"augment\.mixed_together='50 images'"):
        augment.check(batch=100, micro_batch=None, world=2)
    batch_augment().check(batch=3, micro_batch=None, world=1)


# --------------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize(("height", "width"), [(300, 401), (377, 290), (260, 260), (100, 150)])
def test_the_evaluation_crop_is_torchvisions_resize_and_centre_crop(height: int, width: int) -> None:
    size = 96
    pixels = picture(1, height, width)
    theirs = v1.Compose([
        v1.Resize(int(256 / 224 * size), interpolation=v1.InterpolationMode.BICUBIC),
        v1.CenterCrop(size),
        v1.PILToTensor(),
    ])  # fmt: skip
    expected = theirs(Image.fromarray(pixels.permute(1, 2, 0).numpy())).float()
    shown, _ = Appearance("bicubic").show(
        array_image(pixels.permute(1, 2, 0).contiguous().numpy()),
        view=CentreCrop(resize=256 / 224),
        size=(size, size),
        generator=np.random.default_rng(0),
    )
    assert shown.dtype == torch.uint8
    difference = (shown.float() - expected).abs()
    assert float(difference.max()) <= 2
    assert float(difference.mean()) < 0.3
    bilinear, _ = Appearance("bilinear").show(
        array_image(pixels.permute(1, 2, 0).contiguous().numpy()),
        view=CentreCrop(resize=256 / 224),
        size=(size, size),
        generator=np.random.default_rng(0),
    )
    assert not torch.equal(bilinear, shown)


def test_an_image_that_is_not_square_is_covered_in_its_own_proportions() -> None:
    image = array_image(picture(2, 200, 640).permute(1, 2, 0).contiguous().numpy())
    shown, _ = Appearance().show(
        image, view=CentreCrop(resize=1.25), size=(64, 128), generator=np.random.default_rng(0)
    )
    assert shown.shape == (3, 64, 128)
