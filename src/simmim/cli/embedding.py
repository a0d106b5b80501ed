"""The verb that writes features: embed."""

from typing import Annotated

from cyclopts import Parameter

from simmim.cli.app import Json, Layer, Pooling, Unlabelled, app, print_json, say


@app.command
def embed(
    run: str,
    *,
    data: Unlabelled,
    out: Annotated[str, Parameter(help="The file of features: .parquet or .npz.")],
    layer: Layer = None,
    pooling: Pooling = None,
    workers: Annotated[int, Parameter(help="Processes that read images.")] = 0,
    as_json: Json = False,
) -> None:
    """Write the features of images beside their file names; last layer and average of the patches if not given."""
    from simmim.tasks.embed import embed as write

    written = write(run, data=data, out=out, layer=layer, pooling=pooling or "mean", workers=workers)
    if as_json:
        print_json(written._asdict())
        return
    say(
        f"{written.file}: {written.images} images, {written.width} numbers each "
        f"(layer {written.layer}, {written.pooling}); {written.labelled} have a label"
    )
    if written.left_out:
        path, reason = next(iter(written.left_out.items()))
        say(f"{len(written.left_out)} files could not be read and are left out; the first: {path} {reason}")
