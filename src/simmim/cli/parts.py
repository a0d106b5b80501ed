"""Verbs that prepare the parts of a run: avgdist, clusters, tokenizer."""

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from simmim.cli.app import Json, Resume, Seed, Unlabelled, Words, app, given, print_json, say


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
            print_json({"image_size": size, **setting._asdict(), "band": planner.good_band(size)._asdict()})
        else:
            print(f"{setting.avgdist:.1f} px{', in the good band' if setting.in_band else ', outside the good band'}")
        return
    plan = planner.plan_masks(size)
    if picture is not None:
        planner.draw_plan(plan, Path(picture))
    if as_json:
        settings, advice = ([one._asdict() for one in chosen] for chosen in (plan.settings, plan.advice))
        print_json({"image_size": size, "band": plan.band._asdict(), "settings": settings, "advice": advice})
    else:
        planner.tell_plan(plan)


@app.command
def clusters(
    *,
    data: Unlabelled,
    out: Annotated[str, Parameter(help="Where the palette is written, a .npy file.")],
    colours: Annotated[int, Parameter(help="Number of colours.")] = 512,
    seed: int = 0,
    invalid: Annotated[
        str | None, Parameter(help="What marks a pixel as empty, as data.invalid does: black, alpha, nan, or a value.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit a palette of colours to images of your own, for target.kind=clusters."""
    from simmim.tasks.palette import fit_palette, read_invalid

    palette = fit_palette(data, out=Path(out), colours=colours, seed=seed, invalid=read_invalid(invalid))
    if as_json:
        print_json(palette._asdict())
    else:
        print(f"{palette.file}: {palette.colours} colours, a pixel is {palette.distance:.3f} from its own (0 to 1)")
        print(f"next: simmim pretrain RECIPE ... target.kind=clusters target.centres={shlex.quote(palette.file)}")


@app.command
def tokenizer(
    data: Unlabelled,
    *settings: Words,
    out: Annotated[str, Parameter(help="Where the tokenizer is written, a .safetensors file.")],
    recipe: Annotated[str, Parameter(help="A recipe of the task tokenizer.")] = "tokenizer",
    seed: Seed = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train a small tokenizer on images of your own, for target.kind=tokens.

    Example: simmim tokenizer photos --out words.safetensors words=512
    """
    from simmim.tasks.catalogue import resolve
    from simmim.tasks.tokenizer import TokenizerConfig, train_tokenizer

    config = resolve(recipe, settings, task="tokenizer", extra=given(**{"data.source": data}, seed=seed))
    assert isinstance(config, TokenizerConfig)
    made = train_tokenizer(config, out=Path(out), resume=resume)
    if as_json:
        print_json(made._asdict())
        return
    say(
        f"{made.file}: {made.used:.0f} of {made.words} words in use; images drawn from them are off by {made.error:.3f}"
    )
    say(f"picture: {made.picture}")
    say(f"next: simmim pretrain RECIPE ... target.kind=tokens target.weights={shlex.quote(made.file)}")
