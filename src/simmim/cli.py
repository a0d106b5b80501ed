"""Words on a command line become a task. Verbs, flags and how errors meet a person; nothing else."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from cyclopts import App, Parameter

from simmim.version import __version__

if TYPE_CHECKING:
    from simmim.engine.folder import RunFolder

app = App(
    name="simmim",
    version=__version__,
    help="From a pile of unlabelled images to a vision backbone: masked image modeling, from one command.",
)

Data = Annotated[str | None, Parameter(help="A folder of any depth, a list file, or the built-in set digits.")]
Unlabelled = Annotated[str, Parameter(help="A folder of any depth, a list file, or the built-in set digits.")]
Labelled = Annotated[
    str, Parameter(help="Labelled images: one sub-folder a class, a list file with labels, or digits.")
]
Out = Annotated[str, Parameter(help="Folder of the run; it must be new, or be resumed.")]
Seed = Annotated[int | None, Parameter(help="What all randomness is derived from.")]
Resume = Annotated[bool, Parameter(negative="", help="Continue a run that was cut, or begin it.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON value in place of a table.")]
Words = Annotated[str, Parameter(help="Settings that differ from the recipe, each path=value.")]


@app.command
def pretrain(
    recipe: str, *settings: Words, data: Data = None, out: Out, seed: Seed = None, resume: Resume = False
) -> None:
    """Pre-train an encoder on images without labels.

    Example: simmim pretrain tiny --data photos --out runs/tiny masking.ratio=0.5
    """
    from simmim.tasks import pretrain as task
    from simmim.tasks.catalogue import resolve

    config = resolve(recipe, settings, task="pretrain", extra=_given(**{"data.source": data}, seed=seed))
    assert isinstance(config, task.PretrainConfig)
    folder = task.pretrain(config, out=out, resume=resume)
    _say_done(folder, next_words=("reconstruct {run} IMAGES... --out DIR", "probe {run} --data LABELLED"))


@app.command
def finetune(
    run: str, *words: Words, data: Labelled, out: Out, seed: Seed = None, resume: Resume = False, as_json: Json = False
) -> None:
    """Fine-tune a classifier on a pre-trained encoder.

    The first word may be a recipe. Example: simmim finetune runs/tiny --data labelled --out runs/classifier data.labels="1 %"
    """
    from simmim.tasks import finetune as task
    from simmim.tasks.catalogue import resolve

    recipe, settings = ("finetune", words) if not words or "=" in words[0] else (words[0], words[1:])
    extra = _given(**{"data.source": data}, seed=seed, encoder=run)
    config = resolve(recipe, settings, task="finetune", extra=extra)
    assert isinstance(config, task.FinetuneConfig)
    folder = task.finetune(config, out=out, resume=resume)
    result = json.loads((folder.path / task.RESULT_FILE).read_text(encoding="utf-8"))
    if as_json:
        _print_json(result)
    else:
        _say_done(folder, next_words=())
        _say(f"accuracy on {result['images']} images that were held out: {result['accuracy']:.1%}")


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
    if as_json:
        _print_json(result)
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
        _print_json([one._asdict() for one in drawn])
        return
    from simmim.report import print_table

    print_table(("image", "loss", "picture"), [(one.image, f"{one.loss:.4f}", one.picture) for one in drawn])


@app.command
def avgdist(
    *,
    image_size: Annotated[str, Parameter(help="Side of the image in pixels, or height x width: 192, 96x160.")] = "192",
    strategy: Annotated[str | None, Parameter(help="random, square or block; asks for one setting.")] = None,
    mask_patch: Annotated[int | None, Parameter(help="Pixels a side of a hidden cell; asks for one setting.")] = None,
    ratio: Annotated[float | None, Parameter(help="Share that is hidden; asks for one setting.")] = None,
    picture: Annotated[str | None, Parameter(help="Where to draw the figure, a PNG file.")] = None,
    as_json: Json = False,
) -> None:
    """Plan the masks: how far hidden pixels are from visible ones, the paper's label-free predictor of quality."""
    from simmim.tasks import avgdist as planner

    size = planner.read_image_size(image_size)
    if (strategy, mask_patch, ratio) != (None, None, None):
        setting = planner.measure_setting(
            size,
            strategy=strategy or "random",
            mask_patch=32 if mask_patch is None else mask_patch,
            ratio=0.6 if ratio is None else ratio,
        )
        if as_json:
            _print_json({"image_size": size, **setting._asdict(), "band": planner.good_band(size)._asdict()})
        else:
            print(f"{setting.avgdist:.1f} px{', in the good band' if setting.in_band else ', outside the good band'}")
        return
    plan = planner.plan_masks(size)
    if picture is not None:
        planner.draw_plan(plan, Path(picture))
    if as_json:
        settings, advice = ([one._asdict() for one in chosen] for chosen in (plan.settings, plan.advice))
        _print_json({"image_size": size, "band": plan.band._asdict(), "settings": settings, "advice": advice})
    else:
        planner.tell_plan(plan)


@app.command
def clusters(
    *,
    data: Unlabelled,
    out: Annotated[str, Parameter(help="Where the palette is written, a .npy file.")],
    colours: Annotated[int, Parameter(help="Number of colours.")] = 512,
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Fit a palette of colours to images of your own, for target.kind=clusters."""
    from simmim.tasks.palette import fit_palette

    palette = fit_palette(data, out=Path(out), colours=colours, seed=seed)
    if as_json:
        _print_json(palette._asdict())
    else:
        print(f"{palette.file}: {palette.colours} colours, a pixel is {palette.distance:.3f} from its own (0 to 1)")
        print(f"next: simmim pretrain RECIPE ... target.kind=clusters target.centres={palette.file}")


@app.command
def demo(*, out: str = "runs/demo", as_json: Json = False) -> None:
    """See the whole job in minutes: pre-train on handwritten digits, then learn from 10 labels a class."""
    from simmim.tasks.demo import demo as show
    from simmim.tasks.demo import tell

    summary = show(out=Path(out))
    if as_json:
        _print_json(summary._asdict())
    else:
        tell(Path(out), summary)


@app.command
def recipes(*, as_json: Json = False) -> None:
    """List the recipes that come with simmim."""
    from simmim.tasks.catalogue import list_recipes

    found = list_recipes()
    if as_json:
        _print_json([recipe._asdict() for recipe in found])
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
        _print_json(to_tree(config))
    else:
        print(write_yaml(config), end="")


@app.command
def explain(path: str = "", *, task: str = "pretrain", as_json: Json = False) -> None:
    """Say what a setting means, what it allows and what it is by default; or all settings of a block."""
    from simmim.tasks.catalogue import explain as look_up

    found = look_up(path, task=task)
    if as_json:
        _print_json([one._asdict() for one in found])
        return
    for one in found:
        of_kind = f" [{one.kind}]" if one.kind else ""
        print(f"{one.path}{of_kind} = {one.default}    ({one.allowed})\n    {one.description}")


# ------------------------------------------------------------------------------------------------------------ how it is said


def _given(**values: Any) -> Mapping[str, Any]:
    return {path: value for path, value in values.items() if value is not None}


def _print_json(value: object) -> None:
    _say(json.dumps(value, indent=2))


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(text)


def _say_done(folder: "RunFolder", *, next_words: Sequence[str]) -> None:
    pictures = sorted(folder.pictures.glob("*.png"))
    weights = sorted(folder.path.glob("*.safetensors"))
    if folder.bad_files.exists():
        count = len(folder.bad_files.read_text(encoding="utf-8", errors="replace").splitlines())
        _say(f"{count} files could not be read: {folder.bad_files}")
    lines = [f"{folder} is complete", *(f"  weights  {path}" for path in weights)]
    lines += [f"  picture  {pictures[-1]}"] if pictures else []
    lines += [
        f"  {'next' if not number else '':8} simmim {words.format(run=folder)}"
        for number, words in enumerate(next_words)
    ]
    _say("\n".join(lines))


def _fail(message: str, *, code: int) -> NoReturn:
    rank = os.environ.get("RANK", "0")
    print(f"simmim: {message}" if rank == "0" else f"simmim [process {rank}]: {message}", file=sys.stderr)
    sys.exit(code)


def _resume_command() -> str:
    """The command that goes on with what was stopped."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    world, here = os.environ.get("WORLD_SIZE", "1"), os.environ.get("LOCAL_WORLD_SIZE", "1")
    if world != here:
        return "the same torchrun command, and --resume"
    start = ["simmim"] if world == "1" else ["torchrun", "--nproc-per-node", world, "-m", "simmim"]
    return shlex.join([*start, *words, *([] if words[:1] == ["demo"] else ["--resume"])])


def main(run: Callable[[], object] = app) -> None:
    """Run the command line; an error that concerns a person is a sentence, not a traceback."""
    try:
        run()
    except KeyboardInterrupt:
        _fail("stopped", code=130)
    except ValueError as error:
        if getattr(error, "__notes__", ()):  # another process of the run says it
            sys.exit(2)
        _fail(str(error), code=2)
    except Exception as error:
        from simmim.engine.interruption import Interrupted

        if not isinstance(error, Interrupted):
            raise
        _fail(f"{error}; continue with:\n  {_resume_command()}", code=error.exit_code)
