"""A plan in words and numbers."""

from typing import Any

from simmim.report import print_table
from simmim.tasks.plan.machines import NETWORK_GB_S, START_SECONDS
from simmim.tasks.plan.search import IMAGES, Option, Plan
from simmim.units import Size

_GIB = 2**30
_PARALLEL = {"one": "one GPU", "ddp": "DDP", "fsdp": "FSDP"}


def assumptions(plan: Plan) -> list[str]:
    """What the numbers rest on, a sentence each."""
    cluster = plan.cluster
    gpu, network = cluster.gpu, plan.network
    found = [
        f"Images of {size_of(network.image_size)} px with {network.channels} channels, {network.shown()}.",
        "FLOPs: products of matrices, two operations each, by PyTorch's own formulas on a step without values; what attention "
        "computes again within its kernel does not count, what checkpointing computes again counts in the time.",
        "Memory: the moment of a step when most is alive, every tensor of the step followed on the meta device; AdamW in "
        f"float32; {cluster.margin:.0%} of the card is left alone for driver, libraries and allocator.",
        f"Time: {cluster.utilisation:.0%} of the card's dense peak rate (data sheet), an assumption; give your own with "
        "--utilisation; selective checkpointing adds 5 % (an assumption). Reading images is not counted.",
        f"Data: {plan.images:,} images, {plan.total_steps:,} steps of {plan.config.batch:,}."
        + (" That is ImageNet-1K, an assumption; give --images." if plan.images == IMAGES else ""),
    ]
    if cluster.gpus > 1:
        far = f", {NETWORK_GB_S:g} GB/s a card to other hosts (an assumption)" if cluster.hosts > 1 else ""
        found.append(
            f"Exchange: {gpu.link_gb_s:g} GB/s a card within a host (data sheet){far}, hidden behind computing where that is "
            f"long enough; {START_SECONDS * 1e6:g} microseconds to begin each (an assumption); DDP's buckets beside the "
            "gradients; FSDP with three blocks gathered at a time, and weights and gradients whole between the micro batches "
            "of a step."
        )
    return found


def tell(plan: Plan) -> None:
    """Print a plan as tables."""
    parameters = plan.parameters
    forward, backward = (sum(getattr(each, way) for each in plan.flops.values()) for way in ("forward", "backward"))
    parts = [
        (
            part,
            f"{count / 1e6:.2f}",
            *(f"{getattr(plan.flops[part], way) / 1e9:.2f}" for way in ("forward", "backward")),
        )
        if part in plan.flops
        else (part, f"{count / 1e6:.2f}", "0", "0")
        for part, count in parameters.items()
    ]
    parts += [
        (part, "0", f"{flops.forward / 1e9:.2f}", f"{flops.backward / 1e9:.2f}")
        for part, flops in plan.flops.items()
        if part not in parameters
    ]
    sums = ("all", f"{sum(parameters.values()) / 1e6:.2f}", f"{forward / 1e9:.2f}", f"{backward / 1e9:.2f}")
    title = f"{plan.recipe}: {plan.backbone_parameters / 1e6:.2f} M parameters in the backbone"
    columns = ("part", "parameters, M", "forward, GFLOP/image", "backward")
    print_table(columns, [*parts, sums], title=title)
    cluster = plan.cluster
    title = (
        f"{cluster.gpus} x {cluster.gpu.name}: {cluster.room / _GIB:.1f} of {cluster.gpu.memory_gib:g} GiB may be used. GiB a "
        "GPU at the largest micro batch that fits; other: what is copied or exchanged"
    )
    print_table(_MEMORY, [_memory_row(option) for option in plan.options], title=title)
    title = f"{plan.share} images a GPU and step:"
    print_table(_TIME, [_time_row(plan, option) for option in plan.options], title=title)
    print("\n".join(conclusion(plan)))
    print("\nWhat this rests on:\n" + "\n".join(f"- {sentence}" for sentence in assumptions(plan)))


_MEMORY = ("way", "weights", "adamw", "grads", "other", "activ.", "all")
_TIME = ("way", "micro batch", "fits", "images/s", "days")


def _way(option: Option) -> str:
    setting = option.setting
    return f"{setting.parallel} {setting.checkpointing} {setting.precision}"


def _memory_row(option: Option) -> tuple[str, ...]:
    memory = option.memory
    kinds = (memory.weights, memory.optimizer, memory.gradients, memory.copies + memory.exchange, memory.activations)
    return _way(option), *(f"{part / _GIB:.1f}" for part in (*kinds, memory.total))


def _time_row(plan: Plan, option: Option) -> tuple[str, ...]:
    fits = "yes" if option.fits else "no"
    speed, days = f"{plan.images_per_second(option):.0f}", f"{plan.days(option):.3g}"
    return _way(option), str(option.setting.micro_batch), fits, speed, days


def conclusion(plan: Plan) -> list[str]:
    """What to do."""
    said = list[str]()
    written = plan.as_written
    if written is None:
        said.append(f"As written it does not run: a {plan.cluster.gpu.name} knows no {plan.config.machine.precision}.")
    else:
        fits = "fits" if written.fits else "does not fit"
        said.append(f"As written it {fits}: {in_words(written)}, {written.memory.total / _GIB:.1f} GiB a GPU.")
    best = plan.cheapest
    if best is None:
        missing = plan.least.memory.total - plan.cluster.room
        said.append(f"Nothing fits: {in_words(plan.least)} is the least, and lacks {missing / _GIB:.1f} GiB a GPU.")
        said += [f"What would help: {advice}." for advice in plan.advice]
        return said
    said.append(
        f"The cheapest that fits: {in_words(best)}: {plan.images_per_second(best):,.0f} images/s, "
        f"{time_of(plan, best)} in all for {_data_of(plan)}.\n  {plan.command(best)}"
    )
    return said


def _data_of(plan: Plan) -> str:
    """What the length of the run rests on, where it does."""
    duration, warmup = plan.config.schedule.duration, plan.config.schedule.warmup.steps(plan.steps_an_epoch)
    if duration.unit == "steps":
        return str(duration)
    assumed = "ImageNet-1K's " if plan.images == IMAGES else ""
    said = f"{duration} of {assumed}{plan.images:,} images{' (--images for yours)' if assumed else ''}"
    if warmup > plan.total_steps:
        said += f"; the recipe's warm-up alone is {warmup:,} steps, so it was made for far more images"
    return said


def in_words(option: Option) -> str:
    """A setting, for a sentence."""
    setting = option.setting
    again = {"none": "no checkpointing"}.get(setting.checkpointing, f"checkpointing {setting.checkpointing}")
    images = f"{setting.micro_batch} image{'' if setting.micro_batch == 1 else 's'} at a time"
    return f"{_PARALLEL[setting.parallel]}, {again}, {setting.precision}, {images}"


def time_of(plan: Plan, option: Option) -> str:
    """How long the whole run takes, in minutes, hours or days."""
    days = plan.days(option)
    if days >= 1:
        return f"{days:.1f} days"
    return f"{days * 24:.1f} hours" if days >= 1 / 24 else f"{max(days * 24 * 60, 0.1):.1f} minutes"


def size_of(image_size: Size) -> str:
    """Height and width as a person writes them."""
    return f"{image_size[0]}x{image_size[1]}"


def to_json(plan: Plan) -> dict[str, Any]:
    """A plan as plain data; units stand in the keys."""
    cluster, best = plan.cluster, plan.cheapest
    return {
        "recipe": plan.recipe,
        "overrides": list(plan.overrides),
        "parameters": sum(plan.parameters.values()),
        "backbone_parameters": plan.backbone_parameters,
        "parameters_by_part": plan.parameters,
        "flops_per_image": {
            "forward": sum(each.forward for each in plan.flops.values()),
            "backward": sum(each.backward for each in plan.flops.values()),
            "by_part": {part: flops._asdict() for part, flops in plan.flops.items()},
        },
        "gpu": cluster.gpu.name,
        "gpus": cluster.gpus,
        "gpu_memory_bytes": cluster.gpu.memory_gib * _GIB,
        "usable_memory_bytes": cluster.room,
        "utilisation": cluster.utilisation,
        "images_per_step": plan.config.batch,
        "images_per_gpu_and_step": plan.share,
        "images_in_data": plan.images,
        "total_steps": plan.total_steps,
        "settings": [_as_tree(plan, option) for option in plan.options],
        "as_written": None if plan.as_written is None else _as_tree(plan, plan.as_written),
        "cheapest": None if best is None else {**_as_tree(plan, best), "command": plan.command(best)},
        "missing_bytes": 0.0 if best else plan.least.memory.total - cluster.room,
        "advice": plan.advice,
        "assumptions": assumptions(plan),
    }


def _as_tree(plan: Plan, option: Option) -> dict[str, Any]:
    setting = {**option.setting._asdict(), "micro_batch_images": option.setting.micro_batch}
    del setting["micro_batch"]
    return {
        **setting,
        "fits": option.fits,
        "memory_bytes": {**option.memory._asdict(), "total": option.memory.total},
        "step_seconds": option.step_seconds,
        "images_per_second": plan.images_per_second(option),
        "days": plan.days(option),
    }
