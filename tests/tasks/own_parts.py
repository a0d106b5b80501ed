"""Parts of one's own, named in a recipe as tasks.own_parts:Class: some write down what they see, some break."""

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor

from simmim.config import Part
from simmim.masking import RandomMasking
from simmim.targets import Pixels


def _digest(tensor: Tensor) -> str:
    return hashlib.blake2b(tensor.contiguous().numpy().tobytes(), digest_size=8).hexdigest()


def _note(file: str, text: str) -> None:
    with Path(f"{file}.{os.environ.get('RANK', 0)}").open("a", encoding="utf-8") as notes:
        notes.write(text + "\n")


class NotingMasking(Part, frozen=True):
    """Random masking that writes down the masks it draws."""

    kind: str = "tasks.own_parts:NotingMasking"
    file: str = "masks"

    def __call__(
        self, batch: int, *, image_size: tuple[int, int], patch_size: int, generator: torch.Generator
    ) -> Tensor:
        masks = RandomMasking(mask_patch=16)(batch, image_size=image_size, patch_size=patch_size, generator=generator)
        _note(self.file, f"{batch} {_digest(masks)}")
        return masks


class NotingTarget(Part, frozen=True):
    """Pixels, and a note of every image that was trained on."""

    kind: str = "tasks.own_parts:NotingTarget"
    file: str = "images"

    def build(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Pixels:
        file = self.file

        class Noting(Pixels):
            def __call__(self, images: Tensor) -> Tensor:
                if torch.is_grad_enabled():
                    for image in images:
                        _note(file, _digest(image))
                return super().__call__(images)

        return Noting(len(mean))


class BreakingTarget(Part, frozen=True):
    """Pixels that are not numbers in some training steps, counted from 0 (one micro batch a step)."""

    kind: str = "tasks.own_parts:BreakingTarget"
    first: int
    last: int = 10**9
    only_rank: int | None = None

    def build(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Pixels:
        config, calls = self, [0]

        class Breaking(Pixels):
            def __call__(self, images: Tensor) -> Tensor:
                if not torch.is_grad_enabled():
                    return super().__call__(images)
                step, calls[0] = calls[0], calls[0] + 1
                here = config.only_rank in (None, int(os.environ.get("RANK", 0)))
                return images * float("nan") if here and config.first <= step <= config.last else images

        return Breaking(len(mean))


class HidingEverything(Part, frozen=True):
    """Nothing to see."""

    kind: str = "tasks.own_parts:HidingEverything"

    def __call__(
        self, batch: int, *, image_size: tuple[int, int], patch_size: int, generator: torch.Generator
    ) -> Tensor:
        return torch.ones(batch, image_size[0] // patch_size, image_size[1] // patch_size, dtype=torch.bool)


class DyingTarget(Part, frozen=True):
    """Pixels; at a training step, counted from 0 in calls, the second process kills itself, once in the life of a folder."""

    kind: str = "tasks.own_parts:DyingTarget"
    place: str
    call: int
    signal: int = 9

    def build(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Pixels:
        config, calls = self, [0]

        class Dying(Pixels):
            def __call__(self, images: Tensor) -> Tensor:
                calls[0] += torch.is_grad_enabled()
                if os.environ.get("RANK") == "1" and calls[0] > config.call and not Path(config.place).exists():
                    Path(config.place).mkdir()
                    (Path(config.place) / str(os.getpid())).touch()
                    os.kill(os.getpid(), config.signal)
                return super().__call__(images)

        return Dying(len(mean))
