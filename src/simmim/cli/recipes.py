"""Verbs about recipes and their settings: recipes, show, explain."""

from simmim.cli.app import Json, Words, app, print_json


@app.command
def recipes(*, as_json: Json = False) -> None:
    """List the recipes that come with simmim."""
    from simmim.tasks.catalogue import list_recipes

    found = list_recipes()
    if as_json:
        print_json([recipe._asdict() for recipe in found])
        return
    from simmim.report import print_table

    rows = [(recipe.name, recipe.task, recipe.summary, recipe.notes.get("reaches", "")) for recipe in found]
    print_table(("recipe", "task", "what it is", "what it should reach"), rows)


@app.command
def show(recipe: str, *settings: Words, as_json: Json = False) -> None:
    """Print a recipe, complete, as a run would take it; the output is a recipe file itself."""
    from simmim.config import to_tree, write_yaml
    from simmim.tasks.catalogue import resolve

    config = resolve(recipe, settings)
    if as_json:
        print_json(to_tree(config))
    else:
        print(write_yaml(config), end="")


@app.command
def explain(path: str = "", *, task: str = "pretrain", as_json: Json = False) -> None:
    """Say what a setting means, what it allows and what it is by default; or all settings of a block."""
    from simmim.tasks.catalogue import explain as look_up

    found = look_up(path, task=task)
    if as_json:
        print_json([one._asdict() for one in found])
        return
    for one in found:
        of_kind = f" [{one.kind}]" if one.kind else ""
        print(f"{one.path}{of_kind} = {one.default}    ({one.allowed})\n    {one.description}")
