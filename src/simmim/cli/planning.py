"""Verbs that look ahead: plan."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from simmim.cli.app import Json, Words, app, print_json


@app.command
def plan(
    recipe: str,
    *settings: Words,
    gpus: Annotated[int | None, Parameter(help="How many GPUs; those of this machine if not given, or 1.")] = None,
    gpu: Annotated[
        str | None,
        Parameter(help="Which, such as h200 or a100-80gb; that of this machine if not given, or h100."),
    ] = None,
    utilisation: Annotated[float, Parameter(help="Share of the card's peak rate that training reaches.")] = 0.4,
    margin: Annotated[float, Parameter(help="Share of the card's memory that is left alone.")] = 0.1,
    images: Annotated[int | None, Parameter(help="Images of the data set; ImageNet-1K's if not given.")] = None,
    channels: Annotated[int | None, Parameter(help="Channels of an image, where the recipe does not say it.")] = None,
    encoder: Annotated[
        str | None,
        Parameter(help="For a fine-tuning: the run whose encoder it takes, or the recipe of its pre-training."),
    ] = None,
    classes: Annotated[int, Parameter(help="Classes of a fine-tuning.")] = 1000,
    picture: Annotated[str | None, Parameter(help="Where to draw memory by kind, a PNG, SVG or PDF file.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a run will take before anything is bought: parameters, FLOPs, memory, time, what fits.

    Example: simmim plan swinv2_giant --gpus 64 --gpu h200
    """
    import torch

    from simmim.tasks.catalogue import resolve
    from simmim.tasks.plan import Cluster, draw_plan, find_gpu, make_plan, tell, to_json
    from simmim.tasks.tokenizer import TokenizerConfig

    count = max(torch.cuda.device_count(), 1) if gpus is None else gpus
    cluster = Cluster(find_gpu(gpu), count, utilisation=utilisation, margin=margin)
    config = resolve(recipe, settings)
    if isinstance(config, TokenizerConfig):
        raise ValueError(f"recipe {recipe} is for {config.task}; a plan is made of a pretrain or a finetune recipe")
    made = make_plan(
        config,
        cluster,
        recipe=recipe,
        overrides=settings,
        images=images,
        channels=channels,
        encoder=encoder,
        classes=classes,
    )
    if picture is not None:
        draw_plan(made, Path(picture))
    if as_json:
        print_json(to_json(made))
    else:
        tell(made)
