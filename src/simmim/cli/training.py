"""Verbs that train: pretrain, finetune, demo."""

import json
from pathlib import Path

from simmim.cli.app import Data, Json, Labelled, Out, Resume, Seed, Words, app, given, print_json, say, say_done


@app.command
def pretrain(
    recipe: str, *settings: Words, data: Data = None, out: Out, seed: Seed = None, resume: Resume = False
) -> None:
    """Pre-train an encoder on images without labels.

    Example: simmim pretrain tiny --data photos --out runs/tiny masking.ratio=0.5
    """
    from simmim.tasks import pretrain as task
    from simmim.tasks.catalogue import resolve

    config = resolve(recipe, settings, task="pretrain", extra=given(**{"data.source": data}, seed=seed))
    assert isinstance(config, task.PretrainConfig)
    folder = task.pretrain(config, out=out, resume=resume)
    say_done(folder, next_words=("reconstruct {run} IMAGES... --out DIR", "probe {run} --data LABELLED"))


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
    extra = given(**{"data.source": data}, seed=seed, encoder=run)
    config = resolve(recipe, settings, task="finetune", extra=extra)
    assert isinstance(config, task.FinetuneConfig)
    folder = task.finetune(config, out=out, resume=resume)
    result = json.loads((folder.path / task.RESULT_FILE).read_text(encoding="utf-8"))
    if as_json:
        print_json(result)
    else:
        say_done(folder, next_words=())
        say(f"accuracy on {result['images']} images that were held out: {result['accuracy']:.1%}")


@app.command
def demo(*, out: str = "runs/demo", as_json: Json = False) -> None:
    """See the whole job in minutes: pre-train on handwritten digits, then learn from 10 labels a class."""
    from simmim.tasks.demo import demo as show
    from simmim.tasks.demo import tell

    summary = show(out=Path(out))
    if as_json:
        print_json(summary._asdict())
    else:
        tell(Path(out), summary)
