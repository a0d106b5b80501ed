"""Verbs that take weights over the border: import, export."""

import shlex
from dataclasses import asdict
from typing import Annotated, Literal

from cyclopts import Parameter

from simmim.cli.app import Json, app, print_json, say


@app.command(name="import")
def import_(
    file: Annotated[str, Parameter(help="A checkpoint file, or a folder of Hugging Face or timm.")],
    *,
    out: Annotated[str, Parameter(help="The new folder; other verbs accept it as a run.")],
    image_size: Annotated[str | None, Parameter(help="Another image size: 224, or 96x160.")] = None,
    window: Annotated[int | None, Parameter(help="Another window, in tokens; else it grows with the image.")] = None,
    channels: Annotated[int | None, Parameter(help="Another number of channels.")] = None,
    per_block: Annotated[
        bool, Parameter(negative="", help="The paper's ViT: a position bias for every block, from the shared one.")
    ] = False,
    resize: Annotated[
        Literal["cubic", "linear"], Parameter(help="How bias tables are resampled: as officially, or as timm does.")
    ] = "cubic",
    heads: Annotated[int | None, Parameter(help="Attention heads of a plain ViT, where the file does not say.")] = None,
    least: Annotated[
        float, Parameter(help="The share of tensors that must match; what is missing starts at random.")
    ] = 0.95,
    as_json: Json = False,
) -> None:
    """Take up the weights of another program: official, Hugging Face, timm, OpenMMLab."""
    from simmim.tasks.passport import import_weights
    from simmim.units import read_size
    from simmim.weights.adapt import Wanted

    size = None if image_size is None else read_size(image_size)
    done = import_weights(
        file,
        out=out,
        wanted=Wanted(image_size=size, window=window, channels=channels, per_block=per_block, rule=resize, heads=heads),
        least=least,
    )
    if as_json:
        print_json(asdict(done))
        return
    from simmim.report import print_table

    rows = [(fate, str(count), done.names[fate]) for fate, count in done.counts.items()]
    kind = "masked image model" if done.pretraining else "encoder"
    height, width = done.image_size
    title = f"{done.layout} {done.family}, {kind}, {height}x{width} px: {done.share:.1%} of the tensors match"
    print_table(("tensors", "count", "such as"), rows, title=title)
    for name, change in list(done.changes.items())[:6]:
        say(f"changed  {name}: {change}")
    if len(done.changes) > 6:
        say(f"changed  and {len(done.changes) - 6} more")
    for guess in done.guessed:
        say(f"guessed  {guess}")
    verb = "reconstruct {0} IMAGE --out pictures" if done.pretraining else "probe {0} --data LABELLED"
    say(f"{done.folder} is complete\n  next     simmim {verb.format(shlex.quote(done.folder))}")


@app.command
def export(
    run: Annotated[str, Parameter(help="A run, an imported folder, an encoder file, or a foreign file.")],
    *,
    to: Annotated[Literal["timm", "hf", "official", "onnx"], Parameter(help="Whose library shall load it.")],
    out: Annotated[str, Parameter(help="The new folder.")],
    as_json: Json = False,
) -> None:
    """Write weights for another library, which loads them back and is compared before this says done."""
    from simmim.tasks.export import export_weights

    done = export_weights(run, to=to, out=out)
    if as_json:
        print_json(done._asdict())
        return
    lines = [f"{done.folder} is complete: {', '.join(done.files)}"]
    lines.append(f"  checked  {done.checked_by}: largest relative difference {done.difference:.1e}")
    lines += [f"  note     {note}" for note in done.notes]
    lines.append(f"  next     how to load it is in {done.folder}/README.md")
    say("\n".join(lines))
