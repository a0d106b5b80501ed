"""Unlabelled images for a run: the source a recipe names, and the statistics it is normalised by."""

from typing import Protocol

from simmim.data import DataConfig, Source, Statistics, measure, open_source
from simmim.engine.schedule import Schedule
from simmim.tasks.feed import Accompany, Feed, Weigh
from simmim.tasks.training import Session, TrainingConfig


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


class UnlabelledConfig(TrainingConfig, Protocol):
    """The settings of a task that trains on unlabelled images."""

    @property
    def data(self) -> DataConfig: ...  # noqa: D102 - described where it is defined


def feed_images(
    config: UnlabelledConfig,
    session: Session,
    source: Source,
    statistics: Statistics,
    *,
    schedule: Schedule,
    accompany: Accompany,
    weigh: Weigh | None = None,
) -> Feed:
    """The micro batches of a run over unlabelled images, as its recipe shows them; see `Feed`."""
    return Feed(
        samples=config.data.view_samples(source, statistics.channels, seed=config.seed),
        statistics=statistics,
        processes=session.processes,
        batch=config.batch,
        seed=config.seed,
        total_steps=schedule.total_steps,
        machine=config.machine,
        accompany=accompany,
        weigh=weigh,
    )
