"""Draw the pictures of the pages that follow from the code: masks, targets, the method, who imports whom.

    python docs/draw.py

The photograph is flower.jpg of scikit-learn, by vultilion, CC BY 2.0. Pictures are committed; draw them
anew where a part changes.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_sample_images
from torch import Tensor

from simmim.masking import BlockMasking, RandomMasking, SquareMasking, average_distance
from simmim.targets import BinTarget, ClusterTarget, LocalPixelTarget, PatchPixelTarget, PixelTarget
from simmim.units import Size

PLACE = Path(__file__).parent / "pictures"
SIDE = 192
SIZE: Size = (SIDE, SIDE)
PATCH = 4
INK, PAPER, BLUE, GREEN, ORANGE = "#1f2933", "#ffffff", "#3b6ea8", "#3d8361", "#c0662c"

MASKINGS: list[tuple[str, Any]] = [
    ("random, 32 px, 0.6", RandomMasking(mask_patch=32, ratio=0.6)),
    ("random, 8 px, 0.6", RandomMasking(mask_patch=8, ratio=0.6)),
    ("random, 8 px, 0.9", RandomMasking(mask_patch=8, ratio=0.9)),
    ("random, 32 px, 0.2", RandomMasking(mask_patch=32, ratio=0.2)),
    ("random, 64 px, 0.6", RandomMasking(mask_patch=64, ratio=0.6)),
    ("square, 32 px, 0.25", SquareMasking(mask_patch=32, ratio=0.25)),
    ("block, 16 px, 0.6", BlockMasking(mask_patch=16, ratio=0.6)),
]


def photograph() -> Tensor:
    """The middle of the flower (1, 3, 192, 192), 0 to 1."""
    image = torch.from_numpy(np.array(load_sample_images().images[1])).permute(2, 0, 1)[None].float() / 255
    height, width = image.shape[2:]
    top, left = (height - 384) // 2, (width - 384) // 2 + 20
    return torch.nn.functional.avg_pool2d(image[:, :, top : top + 384, left : left + 384], 2)


def draw_masks(path: Path) -> None:
    """One photograph under six masks, and how far their hidden pixels are from visible ones."""
    image = photograph()
    figure, axes = _grid()
    _show(axes[0], image[0], "the image\n")
    for axis, (name, masking) in zip(axes[1:], MASKINGS, strict=True):
        masks = masking(32, image_size=SIZE, patch_size=PATCH, generator=torch.Generator().manual_seed(5))
        holes = masks[:1].repeat_interleave(PATCH, dim=1).repeat_interleave(PATCH, dim=2)[:, None]
        distance = average_distance(masks, patch_size=PATCH)
        _show(axis, torch.where(holes, torch.tensor(0.5), image)[0], f"{name}\nAvgDist {distance:.1f} px")
    _save(figure, path)


def draw_targets(path: Path) -> None:
    """What each target asks a model to predict of one photograph, as far as it can be shown."""
    image = photograph()
    mean, std = image.mean(dim=(0, 2, 3)), image.std(dim=(0, 2, 3))
    normalised = (image - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    numbers = {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}
    palette = path.with_suffix(".npy")
    colours = image.permute(0, 2, 3, 1).reshape(-1, 3)[::997][:16]
    np.save(palette, colours.numpy())
    classes = ClusterTarget(centres=str(palette), stride=4).build(**numbers)
    palette.unlink()
    local, patch = LocalPixelTarget().build(**numbers)(normalised), PatchPixelTarget().build(**numbers)(normalised)
    bins = BinTarget(bins=8).build(**numbers)(normalised)
    shown = [
        ("pixels", image[0]),
        ("pixels, stride 4", PixelTarget(stride=4).build(**numbers)(image)[0]),
        ("pixels, stride 8", PixelTarget(stride=8).build(**numbers)(image)[0]),
        ("pixels, stride 32", PixelTarget(stride=32).build(**numbers)(image)[0]),
        ("local_pixels, 47 px", (local[0] / 5 + 0.5).clamp(0, 1)),
        ("patch_pixels, 16 px", (patch[0] / 5 + 0.5).clamp(0, 1)),
        ("bins, 8 a channel", (bins[0].float() + 0.5) / 8),
        ("clusters, 16 colours", colours[classes(normalised)[0, 0]].permute(2, 0, 1)),
    ]
    figure, axes = _grid()
    for axis, (name, picture) in zip(axes, shown, strict=True):
        _show(axis, picture, name)
    _save(figure, path)


def _grid() -> tuple[Any, Any]:
    figure, axes = plt.subplots(2, 4, figsize=(8, 4.9), dpi=100)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.9, wspace=0.03, hspace=0.24)
    return figure, axes.flat


def _show(axis: Any, image: Tensor, title: str) -> None:
    axis.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
    axis.set_title(title, fontsize=11, color=INK)
    axis.set_axis_off()


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, facecolor=PAPER)
    plt.close(figure)


class Drawing:
    """Boxes and arrows as SVG, on paper of its own, so that it is the same on a dark page."""

    def __init__(self, width: int, height: int, *, title: str) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label="{title}" font-family="system-ui, sans-serif" font-size="14" text-anchor="middle">'
            f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/><defs><marker id="tip" viewBox="0 0 8 8" refX="7" '
            f'refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>'
        )
        self._parts: list[str] = []

    def box(
        self, x: int, y: int, width: int, text: str, *, colour: str = BLUE, height: int = 40, small: str = ""
    ) -> None:
        """A box with its middle at (x, y); `small` is a second line."""
        self._parts.append(
            f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" rx="6" fill="{colour}1c" '
            f'stroke="{colour}"/>'
        )
        self.text(x, y + (-3 if small else 5), text, weight=600)
        if small:
            self.text(x, y + 13, small, size=11)

    def text(self, x: int, y: int, text: str, *, size: int = 14, weight: int = 400, colour: str = INK) -> None:
        """Words around x, on the line y."""
        self._parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{colour}">{text}</text>'
        )

    def arrow(self, *points: tuple[int, int], label: str = "") -> None:
        """A line through the points with a tip at its end, and words over the middle of its first part."""
        path = "M" + "L".join(f"{x} {y}" for x, y in points)
        self._parts.append(f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.4" marker-end="url(#tip)"/>')
        if label:
            (x0, y0), (x1, y1) = points[0], points[1]
            self.text((x0 + x1) // 2, (y0 + y1) // 2 - 7, label, size=12)

    def save(self, path: Path) -> None:
        """Write the file."""
        path.write_text(self._head + "".join(self._parts) + "</svg>\n", encoding="utf-8")


def draw_method(path: Path) -> None:
    """How one image goes through the four parts."""
    one = Drawing(920, 250, title="images, embed, hide, encode, head, prediction; target and distance below")
    one.box(60, 80, 90, "images", colour=INK)
    one.box(260, 80, 120, "embed", small="encoder, first half")
    one.box(425, 80, 90, "hide", colour=GREEN, small="mask token")
    one.box(590, 80, 120, "encode", small="encoder, the rest")
    one.box(755, 80, 90, "head", colour=ORANGE)
    one.box(425, 20, 150, "masking", colour=GREEN, height=32)
    one.box(260, 200, 120, "target", colour="#7b4f9d", small="what is asked")
    one.box(755, 200, 130, "distance", colour="#7b4f9d", small="on the hidden part")
    one.arrow((105, 80), (200, 80))
    one.arrow((320, 80), (380, 80), label="tokens")
    one.arrow((425, 36), (425, 60))
    one.arrow((470, 80), (530, 80), label="tokens")
    one.arrow((650, 80), (710, 80), label="features")
    one.arrow((755, 100), (755, 180))
    one.text(800, 145, "prediction", size=12)
    one.arrow((60, 100), (60, 200), (200, 200))
    one.arrow((320, 200), (690, 200), label="what should have been predicted")
    one.arrow((820, 200), (865, 200))
    one.text(888, 205, "loss", weight=600)
    one.save(path)


def draw_imports(path: Path) -> None:
    """Who may import whom: downwards only, siblings are strangers."""
    one = Drawing(
        860,
        400,
        title="cli over tasks over model, engine, data, weights, report over the four parts over the vocabulary",
    )
    rows: list[tuple[str, list[tuple[str, str]]]] = [
        (BLUE, [("cli", "words become a task")]),
        (BLUE, [("tasks", "what a run does")]),
        (GREEN, [("model", ""), ("engine", ""), ("data", ""), ("weights", ""), ("report", "")]),
        (ORANGE, [("masking", ""), ("encoders", ""), ("heads", ""), ("targets", "")]),
        (INK, [("config, tensors", "")]),
        (INK, [("units, shapes, seeds, files, parent, version", "")]),
    ]
    for number, (colour, names) in enumerate(rows):
        y = 36 + number * 66
        for place, (name, small) in enumerate(names):
            x = 430 + round((place - (len(names) - 1) / 2) * 160)
            one.box(x, y, 380 if len(name) > 30 else 180 if len(names) == 1 else 130, name, colour=colour, small=small)
        if number:
            one.arrow((430, y - 46), (430, y - 21))
    one.save(path)


if __name__ == "__main__":
    mpl.use("agg")
    draw_masks(PLACE / "masks.png")
    draw_targets(PLACE / "targets.png")
    draw_method(PLACE / "method.svg")
    draw_imports(PLACE / "imports.svg")
    print(f"drawn in {PLACE}")
