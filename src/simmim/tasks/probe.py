"""Probing: how far the frozen features of an encoder go, by nearest neighbours and by a linear classifier, layer by layer."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simmim.data import LabelledDataConfig
from simmim.encoders.layers import Place
from simmim.engine.bar import bar
from simmim.engine.folder import RunFolder
from simmim.files import write_text_atomically
from simmim.report.probe_curve import Line, Panel, draw_probe
from simmim.tasks import frozen_classifiers as classifiers
from simmim.tasks.features import Features, FrozenEncoder
from simmim.tasks.frozen_classifiers import Found, Labels
from simmim.tasks.labelled import open_labelled
from simmim.tasks.report import PROBE_FILE, renew

_log = logging.getLogger("simmim")

PICTURE = "probe.png"
_REFINED = 5  # places whose penalty is searched finely, beside the last layer


class Judged(NamedTuple):
    """One point of the curve. What is called cross_validation knows the training images only."""

    layer: int
    pooling: str
    linear_cross_validation: float
    linear_held_out: float
    regularisation: float
    knn_cross_validation: float
    knn_held_out: float
    neighbours: int
    temperature: float


class Probed(NamedTuple):
    """How well frozen features tell the classes apart, on images that were held out; all else was chosen without them."""

    layer: int
    """The last one that no other clearly beats (by more than a standard error) in cross-validation on the training part."""
    pooling: str
    linear_accuracy: float
    """There, on the images held out."""
    regularisation: float
    """Inverse strength of the penalty, chosen the same way."""
    knn_layer: int
    """For nearest neighbours, chosen the same way."""
    knn_pooling: str
    knn_accuracy: float
    neighbours: int
    temperature: float
    last_layer: int
    last_linear_accuracy: float
    """Of the last layer with the best of its poolings, chosen the same way."""
    last_knn_accuracy: float
    training_images: int
    held_out_images: int
    classes: int
    curve: tuple[Judged, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as plain words and numbers."""
        return {**self._asdict(), "curve": [point._asdict() for point in self.curve]}


def probe(
    run: str | Path,
    *,
    data: LabelledDataConfig,
    layer: int | None = None,
    pooling: str | None = None,
    seed: int = 0,
    batch: int = 64,
    workers: int = 0,
) -> Probed:
    """Judge the encoder of a run by its frozen features. Nothing is trained but the probes; images are encoded once.

    Layers and poolings are compared by cross-validation on the training part. (Paper, 4.2: the layer that probes best.) Which
    of two is better is not known where they differ by less than a standard error, so an earlier layer must clearly beat the
    later ones to be chosen. A run folder keeps the result as `probe.json` and the curve as `pictures/probe.png`.

    Args:
        run: a run folder, or an `encoder.safetensors`.
        data: the labelled images.
        layer: this layer only, counted from 1; the last one is judged beside it.
        pooling: "mean" of the patches, or "cls" token; what does better if not given.
        seed: chooses the labels, where `data.labels` asks for a part of them, and the folds.
        batch: images encoded at a time.
        workers: processes that read images.

    Raises:
        ValueError: where layer or pooling are not there, or a class has a single image.
    """
    encoder = FrozenEncoder(run)
    wanted = encoder.layers.places(layer=layer, pooling=pooling)
    last = encoder.layers.places(layer=encoder.layers.depth, pooling=pooling)
    places = list(dict.fromkeys([*wanted, *last]))
    training, held_out, _ = open_labelled(data, seed=seed)
    sides = [encoder.read(source, places, data=data, batch=batch, workers=workers) for source in (training, held_out)]
    probed = judge(sides[0], sides[1], wanted=wanted, seed=seed)
    if Path(run).is_dir():
        _keep(probed, RunFolder(run))
    return probed


def judge(training: Features, held_out: Features, *, wanted: Sequence[Place], seed: int) -> Probed:
    """Choose on the training part, then ask once what was held out.

    Args:
        training: features to choose and to learn from.
        held_out: features at the same places.
        wanted: the places that may be chosen; the others are judged for comparison.
        seed: of the folds.
    """
    linear, knn, refined = _search(training, wanted, seed)
    points = {place: _point(place, training, held_out, linear[place], knn[place]) for place in training.at}
    last_layer = max(place.layer for place in points)
    last = [place for place in points if place.layer == last_layer]
    best_linear, best_knn = _choose([place for place in wanted if place in refined], linear), _choose(wanted, knn)
    chosen, chosen_knn = points[best_linear], points[best_knn]
    return Probed(
        layer=best_linear.layer,
        pooling=best_linear.pooling,
        linear_accuracy=chosen.linear_held_out,
        regularisation=chosen.regularisation,
        knn_layer=best_knn.layer,
        knn_pooling=best_knn.pooling,
        knn_accuracy=chosen_knn.knn_held_out,
        neighbours=chosen_knn.neighbours,
        temperature=chosen_knn.temperature,
        last_layer=last_layer,
        last_linear_accuracy=points[_choose(last, linear)].linear_held_out,
        last_knn_accuracy=points[_choose(last, knn)].knn_held_out,
        training_images=len(training.labels),
        held_out_images=len(held_out.labels),
        classes=len(np.unique(training.labels)),
        curve=tuple(points.values()),
    )


_Searched = dict[Place, Found]


def _search(training: Features, wanted: Sequence[Place], seed: int) -> tuple[_Searched, _Searched, set[Place]]:
    """The best settings at every place, and the places whose penalty was searched finely.

    Those are the last layer and the best of what is wanted by a coarse grid; a place searched coarsely is not comparable
    with one searched finely.
    """
    labels, folds = training.labels, classifiers.folds_of(training.labels, seed)
    linear, knn = _Searched(), _Searched()
    with bar("comparing layers", total=len(training.at)) as advance:
        for place, features in training.at.items():
            linear[place] = classifiers.search_linear(features, labels, folds, classifiers.COARSE_STRENGTHS)
            knn[place] = classifiers.search_knn(features, labels, folds)
            advance(1)
    deepest = max(place.layer for place in linear)
    ranked = sorted(wanted, key=lambda place: (-linear[place].accuracy, -place.layer))
    refined = dict.fromkeys([*ranked[:_REFINED], *(place for place in linear if place.layer == deepest)])
    with bar("searching the penalty", total=len(refined)) as advance:
        for place in refined:
            strengths = classifiers.fine_strengths(linear[place].setting.strength)
            linear[place] = classifiers.search_linear(training.at[place], labels, folds, strengths)
            advance(1)
    return linear, knn, set(refined)


def _choose(places: Sequence[Place], found: _Searched) -> Place:
    """The latest layer that the best place does not clearly beat; the better of its poolings."""
    best = max(places, key=lambda place: (found[place].accuracy, place.layer))
    level = [place for place in places if not classifiers.clearly_better(found[best], found[place])]
    return max(level, key=lambda place: (place.layer, found[place].accuracy))


def _point(place: Place, training: Features, held_out: Features, linear: Found, knn: Found) -> Judged:
    sides = training.at[place], training.labels, held_out.at[place]
    return Judged(
        layer=place.layer,
        pooling=place.pooling,
        linear_cross_validation=linear.accuracy,
        linear_held_out=_share(classifiers.answer_linear(*sides, linear.setting), held_out.labels),
        regularisation=linear.setting.strength,
        knn_cross_validation=knn.accuracy,
        knn_held_out=_share(classifiers.answer_knn(*sides, knn.setting), held_out.labels),
        neighbours=knn.setting.neighbours,
        temperature=knn.setting.temperature,
    )


def _share(answers: Labels, right: Labels) -> float:
    return float((answers == right).mean())


def _keep(probed: Probed, folder: RunFolder) -> None:
    """Write result and picture beside the run; a run that may only be read is judged all the same."""
    try:
        write_text_atomically(folder.path / PROBE_FILE, json.dumps(probed.as_json(), indent=2) + "\n")
        draw_curve(probed, folder.pictures / PICTURE)
        renew(folder.path)
    except PermissionError as error:
        _log.warning("the result is not kept beside the run: %s", error)


def draw_curve(probed: Probed, path: Path) -> None:
    """Both classifiers over the layers."""

    def lines(kind: str) -> dict[str, Line]:
        poolings = dict.fromkeys(point.pooling for point in probed.curve)
        of = {pooling: [point for point in probed.curve if point.pooling == pooling] for pooling in poolings}
        return {
            pooling: Line(
                [point.layer for point in points],
                [getattr(point, f"{kind}_cross_validation") for point in points],
                [getattr(point, f"{kind}_held_out") for point in points],
            )
            for pooling, points in of.items()
        }

    panels = (
        Panel("linear classifier", lines("linear"), (probed.layer, probed.pooling, probed.linear_accuracy)),
        Panel("nearest neighbours", lines("knn"), (probed.knn_layer, probed.knn_pooling, probed.knn_accuracy)),
    )
    title = f"{probed.training_images} images to learn from, {probed.held_out_images} to judge"
    draw_probe(panels, path, title=title)
