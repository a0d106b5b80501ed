"""Verbs that judge a classifier: evaluate."""

from typing import Annotated

from cyclopts import Parameter

from simmim.cli.app import Json, Labelled, app, print_json, say


@app.command
def evaluate(
    run: str,
    *,
    data: Labelled,
    split: Annotated[
        str | None, Parameter(help="Part of the set; val or test if left out, all of a set without parts.")
    ] = None,
    out: Annotated[
        str | None, Parameter(help="Folder for the results; evaluation/ beside the classifier if left out.")
    ] = None,
    batch: Annotated[int, Parameter(help="Images judged at a time.")] = 64,
    workers: Annotated[int, Parameter(help="Processes that read images.")] = 0,
    as_json: Json = False,
) -> None:
    """Judge a fine-tuned classifier: accuracy, classes, calibration, confusion. Runs under torchrun as well.

    Example: simmim evaluate runs/classifier --data imagenet-v2
    """
    from simmim.tasks.evaluate import CONFUSION_FILE, PREDICTIONS_FILE, to_json
    from simmim.tasks.evaluate import evaluate as judge

    result = judge(run, data=data, split=split, out=out, batch=batch, workers=workers)
    if as_json:
        print_json(to_json(result))
        return
    worst = sorted(result.classes, key=lambda score: score.accuracy)[:5]
    lines = [
        f"of {result.images} images{f', {result.unreadable} more could not be read' if result.unreadable else ''}",
        f"  top-1                {result.top1:.2%}",
        f"  top-5                {result.top5:.2%}",
        f"  mean of the classes  {result.mean_class_accuracy:.2%}",
        f"  loss                 {result.loss:.4f}",
        f"  calibration error    {result.calibration_error:.2%}",
        f"  weakest classes      {', '.join(f'{score.name} {score.accuracy:.0%}' for score in worst)}",
        f"  picture              {result.folder}/{CONFUSION_FILE}",
        f"  every image          {result.folder}/{PREDICTIONS_FILE}",
    ]
    say("\n".join(lines))
