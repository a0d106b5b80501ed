"""Verbs for studies: ablate, studies."""

from dataclasses import asdict
from typing import Annotated

from cyclopts import Parameter

from simmim.cli.app import Json, Labelled, Words, app, print_json


@app.command
def ablate(
    study: str,
    *settings: Words,
    data: Labelled,
    out: Annotated[str, Parameter(help="Folder of the study; what is done there is not done again.")],
    seeds: Annotated[int | None, Parameter(help="Runs of each cell, in place of what the study says.")] = None,
    launch: Annotated[
        str | None,
        Parameter(help='How a training is started: "torchrun --nproc-per-node 8"; in this process if not given.'),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a study: every cell of one of the paper's tables, or of your own, into one table beside the paper's numbers.

    Example: simmim ablate table5_small --data digits --out runs/studies
    """
    from pathlib import Path

    from simmim.report import print_table
    from simmim.tasks.studies import ablate as run
    from simmim.tasks.studies import read_study
    from simmim.tasks.studies.tables import table_of

    outcomes = run(study, data=data, out=out, overrides=settings, seeds=seeds, launch=launch)
    folder = Path(out) / Path(study).stem
    if as_json:
        print_json(
            [
                {"cell": one.cell.name, "seed": one.seed, "run": str(one.folder), "failed": one.failed}
                | asdict(one.numbers)
                for one in outcomes
            ]
        )
        return
    table = table_of(read_study(study), outcomes)
    print_table(table.columns, table.rows)
    print("\n".join(str(path) for path in sorted(folder.iterdir())))


@app.command
def studies(*, as_json: Json = False) -> None:
    """List the studies that come with simmim."""
    from simmim.tasks.studies import list_studies

    found = list_studies()
    if as_json:
        print_json([one._asdict() for one in found])
        return
    from simmim.report import print_table

    rows = [(one.name, one.table or "", f"{one.cells}", f"{one.cells * one.seeds}", one.title) for one in found]
    print_table(("study", "mirrors", "cells", "runs", "what it is"), rows)
