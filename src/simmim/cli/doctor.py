"""The verb that comes before a run: doctor."""

from typing import Annotated

from cyclopts import Parameter

from simmim.cli.app import Json, Unlabelled, Words, app, print_json


@app.command
def doctor(
    data: Unlabelled,
    *words: Words,
    write: Annotated[str | None, Parameter(help="Where a recipe that fits is written, a YAML file.")] = None,
    samples: Annotated[int, Parameter(help="Images that are looked at.")] = 1024,
    seed: int = 0,
    trial: Annotated[bool, Parameter(help="Whether a step of the recipe is tried on this machine.")] = True,
    as_json: Json = False,
) -> None:
    """Say what is in a data set, what will not work, and what to set; in less than a minute.

    The first word may be a recipe. Example: simmim doctor photos tiny data.invalid=black --write my.yaml
    """
    from simmim.tasks.doctor.examine import examine
    from simmim.tasks.doctor.tell import tell

    recipe, settings = (None, words) if not words or "=" in words[0] else (words[0], words[1:])
    found = examine(data, recipe, settings, write=write, samples=samples, seed=seed, trial=trial)
    if as_json:
        print_json(found.tree())
    else:
        tell(found, written=write)
