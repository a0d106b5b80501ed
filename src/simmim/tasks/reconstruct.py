"""Reconstruction: what a model says is behind the holes of images of one's own."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from simmim.data import LIST_SUFFIXES, Files, Paths, Source, collate, open_source
from simmim.engine.products import fast_products
from simmim.files import write_atomically
from simmim.report import draw_rows
from simmim.seeds import seed_of
from simmim.tasks.load import LoadedModel, load_with_settings
from simmim.tasks.pictures import TITLES, draw_reconstructions, hide_valid
from simmim.tasks.pretrain import draw_masks

_log = logging.getLogger("simmim")


class Reconstructed(NamedTuple):
    """One image and what the model made of it."""

    image: str
    picture: str
    """Where original, masked and predicted lie side by side."""
    loss: float
    """The model's own loss on it, under this mask."""


def reconstruct(
    run: str | Path, images: Sequence[str | Path], *, out: str | Path, seed: int = 0
) -> list[Reconstructed]:
    """Hide parts of images and draw what the model predicts there.

    Args:
        run: a pre-training run, or one of its checkpoints.
        images: image files, or folders of them.
        out: folder for the pictures, one for each image.
        seed: chooses the masks; the same seed hides the same cells of the first, second, ... image.

    Raises:
        ValueError: where nothing can be read, or the target cannot be shown as an image.
    """
    loaded = load_with_settings(run)
    loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
    sources = [loaded.config.data.arranged(_source(path)) for path in images]
    done: list[Reconstructed] = []
    for source in sources:
        for index in range(len(source)):
            one = _reconstruct_one(loaded, source, index, Path(out), number=len(done), seed=seed)
            done += [one] if one else []
    if not done:
        raise ValueError("none of the images could be read")
    return done


def _source(path: str | Path) -> Source:
    """A folder or list as a source; a single image as a source of one."""
    file = Path(path)
    if not file.is_file() or file.suffix.lower() in LIST_SUFFIXES:
        return open_source(path)
    return Files(root=Path(), paths=Paths([str(file)]))


def _reconstruct_one(
    loaded: LoadedModel, source: Source, index: int, out: Path, *, number: int, seed: int
) -> Reconstructed | None:
    config, model, statistics = loaded.config, loaded.model, loaded.statistics
    samples = config.data.view_samples(source, statistics.channels, seed=seed, centred=True)
    try:
        sample = samples[(0, index)]
        problem = next(iter(sample.problems.values()), None)
    except ValueError as error:  # nothing in the source can be read
        sample, problem = None, str(error)
    if sample is None or problem is not None:
        _log.warning("%s is left out: %s", source.name(index), problem)
        return None
    batch = collate([sample])
    raw, valid = batch.images, batch.valid
    mask = draw_masks(config, model, batch=1, step=seed_of(seed, "reconstruct", number))
    mask = mask if valid is None else hide_valid(mask, valid)
    with torch.no_grad(), fast_products():
        device = next(model.parameters()).device
        on_device = None if valid is None else valid.to(device)
        loss = float(model(statistics.normalise(raw.to(device), on_device), mask.to(device), on_device).loss)
    rows = draw_reconstructions(model, raw, mask, statistics, valid)
    name = source.name(index)
    picture = out / f"{number:04d}_{Path(name).stem}.png"
    note = f"{Path(name).name}: loss {loss:.3f}, {float(mask.float().mean()):.0%} hidden"
    write_atomically(picture, lambda part: draw_rows(rows, titles=TITLES, note=note).save(part, format="PNG"))
    return Reconstructed(name, str(picture), loss)
