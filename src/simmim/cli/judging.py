"""Verbs that look at what was trained: probe, reconstruct."""

from typing import Annotated

from cyclopts import Parameter

from simmim.cli.app import Json, Labelled, Layer, Pooling, app, print_json


@app.command
def probe(
    run: str,
    *,
    data: Labelled,
    labels: Annotated[
        str | None, Parameter(help='Training labels used: "10 per class", "1 %"; all if left out.')
    ] = None,
    layer: Layer = None,
    pooling: Pooling = None,
    seed: int = 0,
    workers: Annotated[int, Parameter(help="Processes that read images.")] = 0,
    as_json: Json = False,
) -> None:
    """Judge an encoder by its frozen features, layer by layer: nearest neighbours and a linear classifier."""
    from simmim.tasks.words import probe as ask

    result = ask(run, data=data, labels=labels, layer=layer, pooling=pooling, seed=seed, workers=workers)
    if as_json:
        print_json(result.as_json())
        return
    from simmim.report import print_table

    rows = [
        (
            str(one.layer),
            one.pooling,
            f"{one.linear_cross_validation:.1%}",
            f"{one.linear_held_out:.1%}",
            f"{one.knn_cross_validation:.1%}",
            f"{one.knn_held_out:.1%}",
        )
        for one in result.curve
    ]
    judged = f"{result.training_images} images to learn from, {result.held_out_images} to judge"
    columns = ("layer", "pooling", "linear: cross-validated", "held out", "k-NN: cross-validated", "held out")
    print_table(columns, rows, title=judged)
    rows = [
        (
            "nearest neighbours",
            f"{result.knn_accuracy:.1%}",
            f"layer {result.knn_layer}, {result.knn_pooling}, k = {result.neighbours}, "
            f"temperature = {result.temperature:g}",
            f"{result.last_knn_accuracy:.1%}",
        ),
        (
            "linear classifier",
            f"{result.linear_accuracy:.1%}",
            f"layer {result.layer}, {result.pooling}, C = {result.regularisation:.3g}",
            f"{result.last_linear_accuracy:.1%}",
        ),
    ]
    print_table(("probe", "accuracy", "chosen by cross-validation", f"layer {result.last_layer}"), rows)


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
