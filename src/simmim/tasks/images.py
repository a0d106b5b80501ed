"""Unlabelled images for a run: the source a recipe names, and the statistics it is normalised by."""

from simmim.data import DataConfig, Source, Statistics, measure, open_source
from simmim.tasks.training import Session


def open_images(data: DataConfig) -> Source:
    """The images a recipe names.

    Raises:
        ValueError: where it names none, or there are none.
    """
    if data.source is None:
        raise ValueError("no images were named; give --data FOLDER, a list file, or the built-in set digits")
    return data.arranged(open_source(data.source, split=data.split))


def statistics_of(data: DataConfig, source: Source, session: Session, *, seed: int) -> Statistics:
    """As the recipe gives them, as the run measured them when it began, or measured now."""
    before = session.before
    if before is not None:
        return Statistics(before["channels"], tuple(before["mean"]), tuple(before["std"]), 0)
    if data.mean is not None and data.std is not None:
        return Statistics(data.channel_count or len(data.mean), data.mean, data.std, 0)
    return session.processes.from_main(
        lambda: measure(
            source, channels=data.channel_count, seed=seed, max_pixels=data.max_pixels, invalid=data.invalid
        )
    )
