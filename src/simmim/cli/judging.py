"""Verbs that look at what was trained: probe, reconstruct."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from simmim.cli.app import Json, Labelled, app, print_json
from simmim.files import write_text_atomically


@app.command
def probe(
    run: str,
    *,
    data: Labelled,
    labels: Annotated[
        str | None, Parameter(help='Training labels used: "10 per class", "1 %"; all if left out.')
    ] = None,
    seed: int = 0,
    workers: Annotated[int, Parameter(help="Processes that read images.")] = 0,
    as_json: Json = False,
) -> None:
    """Judge an encoder by its frozen features: nearest neighbours and a linear classifier."""
    from simmim.tasks.words import probe as ask

    result = ask(run, data=data, labels=labels, seed=seed, workers=workers)._asdict()
    if Path(run).is_dir():  # its page tells of it
        write_text_atomically(Path(run) / "probe.json", json.dumps(result, indent=2) + "\n")
    if as_json:
        print_json(result)
        return
    from simmim.report import print_table

    rows = [
        ("nearest neighbours", f"{result['knn_accuracy']:.1%}", f"k = {result['neighbours']}"),
        ("linear classifier", f"{result['linear_accuracy']:.1%}", f"C = {result['regularisation']:g}"),
    ]
    judged = f"{result['training_images']} images to learn from, {result['held_out_images']} to judge"
    print_table(("probe", "accuracy", "chosen by cross-validation"), rows, title=judged)


@app.command
def reconstruct(run: str, *images: str, out: str, seed: int = 0, as_json: Json = False) -> None:
    """Draw what a model predicts behind holes in images of your own: original, masked, predicted."""
    from simmim.tasks.reconstruct import reconstruct as draw

    if not images:
        raise ValueError("no images were named; give image files or folders of them")
    drawn = draw(run, images, out=out, seed=seed)
    if as_json:
        print_json([one._asdict() for one in drawn])
        return
    from simmim.report import print_table

    print_table(("image", "loss", "picture"), [(one.image, f"{one.loss:.4f}", one.picture) for one in drawn])
