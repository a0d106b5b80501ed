"""Verbs that tell of runs: report."""

from typing import Annotated

from cyclopts import Parameter

from simmim.cli.app import Json, app, print_json


@app.command
def report(
    *runs: Annotated[str, Parameter(help="Folders of runs; several are laid side by side.")],
    out: Annotated[str | None, Parameter(help="The page; report.html in the run's folder if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Write a page that tells of a run, or of several side by side: one HTML file, no network, no server.

    Example: simmim report runs/a runs/b --out compare.html
    """
    from simmim.tasks.report import report as write

    path = write(runs, out=out)
    if as_json:
        print_json({"page": str(path)})
    else:
        print(f"written: {path}")
