"""An examination on a terminal."""

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from simmim.engine.progress import duration_text
from simmim.report import print_table
from simmim.tasks.doctor.examine import Examination
from simmim.tasks.doctor.problem import WORDS, counted
from simmim.tasks.doctor.trial import Trial

_GIB = 1024**3


def tell(found: Examination, *, written: str | None = None) -> None:
    """What is there, how the recipe fits, what is wrong and its cure, what to do next."""
    print_table(("images", found.data), _of_data(found))
    print()
    reason = f", because {found.why}" if found.why else ""
    _say(f"Recipe: {found.recipe}{reason}", style="bold")
    print_table(
        ("against the recipe", f"here: {found.machine['device']}, {found.machine['cores']} cores"), _of_fit(found)
    )
    print()
    _problems(found)
    print()
    _recipe(found, written)
    print()
    _say(f"Looked for {duration_text(found.seconds)}. Next:")
    print(f"  {found.command}" if found.advised is not None else "  copy the files again, and give this command again")


def _recipe(found: Examination, written: str | None) -> None:
    if found.advised is None:
        _say("No recipe fits: no image could be read" + (f", and {written} is not written." if written else "."))
        return
    _say("A recipe that fits" + (f", written to {written}:" if written else ":"), style="bold")
    for note in found.notes:
        _say(f"- {note}", indent=2)
    if written is None:
        _say("write it with --write my.yaml", indent=2)


def _of_data(found: Examination) -> list[tuple[str, str]]:
    rows = [
        ("files", f"{found.listed}, of which {found.images} may be images"),
        ("looked at", f"a sample of {found.looked_at}, seed {found.seed}" if found.looked_at < found.images else "all"),
        ("formats", _counts(found.formats)),
        ("number types", _counts(found.depths)),
        ("channels", _counts(found.channels)),
        ("height x width", ", ".join(f"{word} {h}x{w}" for word, (h, w) in found.sizes.items())),
    ]
    if found.statistics is not None:
        rows.append(("mean", ", ".join(f"{number:.3f}" for number in found.statistics.mean)))
        rows.append(("std", ", ".join(f"{number:.3f}" for number in found.statistics.std)))
        rows.append(
            ("measured on", f"{counted(found.statistics.measured_on, 'image')}; 8 bits divided by 255, 16 by 65535")
        )
    return rows


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{word} ({count})" for word, count in counts.items())


def _of_fit(found: Examination) -> list[tuple[str, str]]:
    fit, trial = found.fit, found.fit.trial
    rows = [("parameters", f"{fit.parameters / 1e6:.1f} M"), ("AvgDist", f"{fit.avgdist:.1f} px")]
    if fit.decoded_per_second:
        rows.append(("reading", f"{fit.decoded_per_second:.0f} images/s a core"))
    if trial.images_tried:
        whole = trial.images_tried == trial.micro_batch
        how = "measured" if whole else f"from steps of up to {counted(trial.images_tried, 'image')}"
        rows.append(("memory", f"{trial.memory_bytes / _GIB:.2f} GiB at {counted(trial.micro_batch, 'image')}, {how}"))
        rows.append(
            (
                "network",
                f"{trial.images_per_second:.3g} images/s in {trial.measured_in}, {counted(trial.images_tried, 'image')}",
            )
        )
    if trial.images_tried or trial.refused:
        rows.append(("precision, speed", _of_formats(trial)))
    if fit.hours:
        length = duration_text(fit.hours * 3600)
        rows.append(("the run", f"{fit.epochs:.0f} epochs, {length} at {fit.images_per_second:.1f} images/s"))
        rows.append(("bound by", fit.bound_by))
    if fit.advised_epochs:
        rows.append(("the data ask for", f"{fit.advised_epochs} epochs (rule of thumb)"))
    return rows


def _of_formats(trial: Trial) -> str:
    """How fast the number formats are beside float32, and which to take."""
    times = trial.precisions
    base = times.get("fp32", 0.0)
    words = [f"{name} {base / seconds:.1f}x" if base else name for name, seconds in times.items()]
    words += [f"{name} no ({why})" for name, why in trial.refused.items()]
    if not words:
        return "not compared: no time was left; take fp32"
    clearly = "; no other is clearly faster" if trial.fastest == "fp32" and len(times) > 1 else ""
    return f"{', '.join(words)}; take {trial.fastest}{clearly}"


def _problems(found: Examination) -> None:
    if not found.problems:
        _say("No problems found.", style="bold")
        return
    _say(
        f"{len(found.problems)} problems, the heaviest first" if len(found.problems) > 1 else "1 problem", style="bold"
    )
    for number, problem in enumerate(found.problems, 1):
        _say(f"{number}. {problem.name}: {WORDS[problem.weight]}", style="bold", indent=2)
        _say(problem.said, indent=5)
        if problem.examples:
            _say(f"such as {', '.join(problem.examples)}", indent=5, style="dim")
        _say(f"cure: {problem.cure}", indent=5)


def _say(text: str, *, indent: int = 0, style: str = "") -> None:
    Console().print(Padding(Text(text, style=style), (0, 0, 0, indent)))
