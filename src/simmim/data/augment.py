"""What fine-tuning does to an image beside the crop: how it is resized, RandAugment, random erasing, mixing.

timm's own implementations, each begun at a seed that is a pure function of what it is for: those of a sample at
(seed, epoch, index), that of images mixed together at (seed, step, place in the batch). What was drawn elsewhere from the
same global streams goes on as if nothing had happened.
"""

import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, cast

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from timm.data.auto_augment import posterize, rand_augment_transform  # pyright: ignore[reportUnknownVariableType]
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from simmim.config import Settings
from simmim.data.image import ImageFile
from simmim.data.transforms import CentreCrop, Interpolation, View, render, render_centre, render_valid
from simmim.data.valid import Invalid
from simmim.seeds import seed_of
from simmim.units import ImageCount, Size

_TRANSLATION = 0.45  # largest shift in RandAugment, as a share of the image (timm.data.create_transform)


class AugmentConfig(Settings, frozen=True):
    """What is done to training images beside the crop; nothing, if not given. The published runs do all of it."""

    rand_augment: str | None = None
    """RandAugment in timm's words, such as rand-m9-mstd0.5-inc1; takes 8-bit images of three channels. Null for none."""
    mixup: float = Field(default=0.0, ge=0)
    """Alpha of Mixup: the larger, the more even the mixture of two images; 0 for none. Published: 0.8."""
    cutmix: float = Field(default=0.0, ge=0)
    """Alpha of CutMix, which pastes a box of one image into another; 0 for none. Published: 1."""
    mix_share: float = Field(default=1.0, ge=0, le=1)
    """Share of the batches that are mixed, where there is Mixup or CutMix."""
    switch_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the mixed batches that go to CutMix, where there are both."""
    mixed_together: ImageCount = Field(default=128, ge=2, multiple_of=2)
    """Images that are mixed among themselves, under one draw: in the published runs those of one GPU."""
    erasing: float = Field(default=0.0, ge=0, le=1)
    """Share of the images in which a box is replaced by noise. Published: 0.25."""

    @property
    def mixes(self) -> bool:
        """Whether images are mixed."""
        return self.mix_share > 0 and (self.mixup > 0 or self.cutmix > 0)

    @model_validator(mode="after")
    def _known_policy(self) -> Self:
        if self.rand_augment is not None:
            try:
                assert self.rand_augment.startswith("rand-")
                rand_augment_transform(self.rand_augment, {})
            except (AssertionError, ValueError, KeyError) as error:
                raise ValueError(
                    f"augment.rand_augment={self.rand_augment} is no RandAugment of timm's; such as rand-m9-mstd0.5-inc1, "
                    "or null"
                ) from error
        return self


@contextmanager
def randomness_from(seed: int) -> Generator[None]:
    """Begin the global streams of Python, NumPy and torch's CPU at a seed, and put them back behind."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _posterize(image: Image.Image, bits_to_keep: int, **words: Any) -> Image.Image:
    """timm's posterize; at the largest magnitude it keeps no bit at all, which Pillow 13 refuses: black."""
    reduce = cast("Callable[..., Image.Image]", posterize)
    return reduce(image, bits_to_keep, **words) if bits_to_keep > 0 else Image.new(image.mode, image.size)


@dataclass(frozen=True)
class RandAugment:
    """timm's RandAugment on uint8 pixels (3, height, width)."""

    policy: str
    size: Size
    mean: tuple[float, ...]
    """Of each channel, 0 to 1: the colour of what comes in from outside."""
    interpolation: Interpolation

    @cached_property
    def _transform(self) -> Any:
        words = {
            "translate_const": int(min(self.size) * _TRANSLATION),
            "img_mean": tuple(min(255, round(255 * value)) for value in self.mean),
            "interpolation": Image.Resampling[self.interpolation.upper()],
        }
        transform: Any = rand_augment_transform(self.policy, words)
        for operation in transform.ops:
            if operation.aug_fn is posterize:
                operation.aug_fn = _posterize
        return transform

    def __call__(self, pixels: Tensor, *, seed: int) -> Tensor:
        """The pixels, changed as the seed says.

        Raises:
            ValueError: where they are not 8-bit in three channels.
        """
        self.check(channels=pixels.shape[0], eight_bit=pixels.dtype == torch.uint8)
        with randomness_from(seed):
            changed = self._transform(Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()))
        return torch.from_numpy(np.array(changed)).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]

    def check(self, *, channels: int, eight_bit: bool) -> None:
        """Refuse images that RandAugment's colour operations do not know."""
        if channels != 3 or not eight_bit:
            depth = "8 bit" if eight_bit else "more than 8 bit"
            raise ValueError(
                f"augment.rand_augment works on 8-bit images of three channels, and these have {channels} of {depth}; "
                "switch it off with augment.rand_augment=null (mixing and erasing work on all images)"
            )


@dataclass(frozen=True)
class Appearance:
    """How the part of an image that a view chooses becomes the pixels of a sample."""

    interpolation: Interpolation = "bilinear"
    augment: RandAugment | None = None
    invalid: Invalid | None = None
    """What marks a pixel as empty; such images are shown bilinear, without what is empty."""

    def show(
        self, image: ImageFile, *, view: View, size: Size, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """The pixels under a view (channels, height, width), and which of them are not empty, where that is asked."""
        if self.invalid is not None:
            box = view.box(image.height, image.width, size=size, generator=generator)
            return render_valid(image, box=box, size=size, invalid=self.invalid)
        return self._rendered(image, view=view, size=size, generator=generator), None

    def _rendered(self, image: ImageFile, *, view: View, size: Size, generator: np.random.Generator) -> Tensor:
        if isinstance(view, CentreCrop) and view.resize > 1:
            short = (int(view.resize * size[0]), int(view.resize * size[1]))
            return render_centre(image, short=short, size=size, interpolation=self.interpolation)
        box = view.box(image.height, image.width, size=size, generator=generator)
        return render(image, box=box, size=size, interpolation=self.interpolation)


PLAIN = Appearance()
"""As pre-training sees images: bilinear, nothing changed."""


@dataclass(frozen=True)
class BatchAugment:
    """What happens to normalised images on the device: erasing, each for itself, then mixing among them."""

    config: AugmentConfig
    classes: int
    label_smoothing: float
    seed: int

    def check(self, *, batch: int, micro_batch: int | None, world: int) -> None:
        """Refuse a batch that falls into other parts than the images that are mixed together."""
        group, share = self.config.mixed_together, batch // world
        micro = min(micro_batch or share, share)
        if self.config.mixes and (batch % (world * group) or (micro < share and micro % group)):
            fitting = int(np.gcd(share, micro))
            raise ValueError(
                f"augment.mixed_together={group} images do not divide a micro batch of {micro} images, {share} to a process; "
                f"set augment.mixed_together='{max(fitting - fitting % 2, 2)} images', or another batch"
            )

    def erase(self, images: Tensor, *, epoch: int, indices: list[int]) -> Tensor:
        """Put a box of noise into some of the images (count, channels, height, width), in place."""
        if self.config.erasing:
            eraser = RandomErasing(self.config.erasing, mode="pixel", device="cpu")  # the same noise on every device
            for image, index in zip(images, indices, strict=True):
                with randomness_from(seed_of(self.seed, "erasing", epoch, index)):
                    eraser(image)
        return images

    def mix(self, images: Tensor, labels: Tensor, *, step: int, first: int) -> tuple[Tensor, Tensor]:
        """Mix images in place, and give what is wanted of them.

        Args:
            images: (count, channels, height, width).
            labels: (count,).
            step: of the run.
            first: place of the first of them in the global batch.

        Returns:
            The images, and the share of each class in them (count, classes), smoothed; without mixing the labels as they
            are.
        """
        if not self.config.mixes:
            return images, labels
        group = self.config.mixed_together
        wanted: list[Tensor] = []
        for start in range(0, len(images), group):
            part = slice(start, start + group)
            with randomness_from(seed_of(self.seed, "mixing", step, (first + start) // group)):
                wanted.append(cast("tuple[Tensor, Tensor]", self._mixup(images[part], labels[part]))[1])
        return images, torch.cat(wanted)

    @cached_property
    def _mixup(self) -> Any:
        return Mixup(
            mixup_alpha=self.config.mixup,
            cutmix_alpha=self.config.cutmix,
            prob=self.config.mix_share,
            switch_prob=self.config.switch_share,
            label_smoothing=self.label_smoothing,
            num_classes=self.classes,
        )
