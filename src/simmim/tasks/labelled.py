"""Labelled images for the tasks that follow pre-training: what is learned from, what is judged on."""

from dataclasses import replace
from typing import NamedTuple

from simmim.data import (
    Appearance,
    LabelledDataConfig,
    Samples,
    Source,
    Statistics,
    View,
    choose_labels,
    hold_out,
    open_source,
    splits_of,
)
from simmim.weights import EncoderFile

JUDGED_ON = ("val", "test")
"""The parts of a set that are judged on, the first that is there."""


class LabelledImages(NamedTuple):
    """Two sources with the same classes."""

    training: Source
    held_out: Source
    listed: int
    """How many files there are in both, bad ones included."""

    @property
    def problems(self) -> dict[str, str]:
        """The files found bad while the set was indexed."""
        return {**self.training.problems, **self.held_out.problems}


def open_labelled(data: LabelledDataConfig, *, seed: int) -> LabelledImages:
    """Open a labelled set: its own train and val (or test) parts, or a share of it held out, the same for every seed.

    Raises:
        ValueError: where no set was named, it has no labels, or its parts have other classes.
    """
    if data.source is None:
        raise ValueError("no labelled images were named; give --data FOLDER with one sub-folder a class, or digits")
    splits = splits_of(data.source)
    judged_on = next((name for name in JUDGED_ON if name in splits), None)
    if "train" in splits and judged_on:
        training = data.arranged(open_source(data.source, split="train", labelled=True))
        held_out = data.arranged(open_source(data.source, split=judged_on, labelled=True))
        listed = training.listed + held_out.listed
    else:
        whole = data.arranged(open_source(data.source, labelled=True))
        training, held_out = hold_out(whole, data.held_out, seed=0)
        listed = whole.listed
    if training.classes != held_out.classes:
        odd = sorted(set(training.classes) ^ set(held_out.classes))
        raise ValueError(
            f"the two parts of {data.source} have other classes; in one of them only: {', '.join(odd[:5])}"
        )
    return LabelledImages(choose_labels(training, data.labels, seed), held_out, listed)


def statistics_of(about: EncoderFile) -> Statistics:
    """How the images of an encoder are normalised."""
    return Statistics(about.channels, about.mean, about.std, 0)


def samples_of(
    data: LabelledDataConfig, about: EncoderFile, source: Source, *, view: View, appearance: Appearance, seed: int
) -> Samples:
    """Images as an encoder takes them, under a view."""
    return Samples(
        source,
        view=view,
        size=about.image_size,
        channels=about.channels,
        seed=seed,
        bad_share=data.bad_share,
        max_pixels=data.max_pixels,
        appearance=replace(appearance, invalid=data.invalid),
    )


def samples_to_judge(data: LabelledDataConfig, about: EncoderFile, source: Source, *, seed: int) -> Samples:
    """Images as they are judged: the middle of each, nothing random."""
    return samples_of(data, about, source, view=data.evaluation, appearance=Appearance(data.interpolation), seed=seed)
