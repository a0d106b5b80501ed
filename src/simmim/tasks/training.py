"""What every task that trains has in common: the folder, the recipe in it, the resuming, the leaving."""

import json
import logging
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import timm
import torch
from torch import nn

from simmim.config import RecipeError, Settings, Tree, load, read_yaml, to_tree, write_yaml
from simmim.data import Quarantine, Source
from simmim.engine.distributed import MachineConfig, Processes, start_processes
from simmim.engine.folder import OutputConfig, RunError, RunFolder
from simmim.engine.loop import train
from simmim.engine.metrics import MetricsLog
from simmim.engine.optimizer import Group, OptimizerConfig, build_adamw
from simmim.engine.peers import is_of_a_lost_peer, name_the_lost
from simmim.engine.precision import Precision
from simmim.engine.run import Run
from simmim.engine.schedule import Schedule, ScheduleConfig
from simmim.files import DiskFull, digest_of, write_text_atomically
from simmim.seeds import seed_of
from simmim.tasks.agreement import check_recipe, differences
from simmim.tasks.feed import Feed
from simmim.tasks.report import Page
from simmim.version import __version__

_log = logging.getLogger("simmim")
_MAY_DIFFER = ("machine", "monitor", "output")


class TrainingConfig(Protocol):
    """What the settings of every task that trains hold."""

    @property
    def optimizer(self) -> OptimizerConfig: ...  # noqa: D102 - described where it is defined
    @property
    def schedule(self) -> ScheduleConfig: ...  # noqa: D102
    @property
    def batch(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def machine(self) -> MachineConfig: ...  # noqa: D102
    @property
    def output(self) -> OutputConfig: ...  # noqa: D102


@dataclass(frozen=True)
class Session:
    """Where a run takes place, and what it found there."""

    processes: Processes
    folder: RunFolder
    before: Mapping[str, Any] | None
    """What the run wrote of itself when it began; None for a new one."""


@dataclass(frozen=True)
class BuiltRun:
    """A run that is ready to start."""

    run: Run
    derived: Mapping[str, Any]
    """What follows from recipe, data and machine, for people to read; never written into the recipe."""
    finish: Callable[[], None]
    """Writes what the run was made for; called in every process."""


Config = TypeVar("Config", bound=Settings)


def train_in_folder(
    config: Config,
    build: Callable[[Config, Session], BuiltRun],
    *,
    out: str | Path,
    resume: bool,
    machine: MachineConfig,
) -> RunFolder:
    """Build a run and train it to its end in a folder of its own.

    Raises:
        ValueError: where the recipe, the data or the folder do not allow it, in words for a person.
        Interrupted: where the run was asked to stop; it saved before it did.
    """
    processes = start_processes(
        machine.device,
        parallel=machine.parallel,
        patience_minutes=machine.patience_minutes,
        lean=machine.checkpointing == "blocks",
    )
    folder = RunFolder(out)
    page, began = Page(folder), False
    handlers: list[logging.Handler] = []
    log: MetricsLog | None = None
    try:
        check_recipe(config, processes)
        processes.from_main(lambda: folder.open(resume=resume))
        handlers = processes.only_main(lambda: _log_to(folder.log)) or []
        before = processes.from_main(lambda: _before(folder, config))
        _log.info("%s in %s", "goes on" if before else "begins", folder)
        built = build(config, Session(processes, folder, before))
        processes.from_main(lambda: _write_beginning(folder, config, built.derived, before))
        run = replace(built.run, after_report=page.keep)
        run.restore()
        began = True
        log = processes.only_main(lambda: MetricsLog(folder.metrics, after_step=run.step, trackers=run.output.trackers))
        train(run, log)
        built.finish()
        processes.only_main(page.write)
        processes.gather(None)  # nobody leaves before all is written
        _log.info("done: %d steps, %d of them skipped", run.step, run.skipped)
    except Exception as error:
        _log.debug("ended early", exc_info=True)
        lost = name_the_lost(processes) if processes.world > 1 and is_of_a_lost_peer(error) else None
        if began and processes.is_main and not isinstance(error, DiskFull):
            page.write()
        if lost is not None:
            raise lost from error
        raise
    finally:
        if log is not None:
            log.close()
        for handler in handlers:
            _log.removeHandler(handler)
            handler.close()
        folder.close()
        processes.close()
    return folder


class _LogFile(logging.FileHandler):
    """log.txt; where it can no longer be written it falls silent, for the run itself says that the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """In place of a traceback on the screen."""
        self.setLevel(logging.CRITICAL + 1)

    def close(self) -> None:
        """Close the file, even where its last lines cannot be written."""
        with suppress(OSError):
            super().close()


def _log_to(path: Path) -> list[logging.Handler]:
    """Everything goes to log.txt, warnings to the person as well."""
    file, screen = _LogFile(path, encoding="utf-8"), logging.StreamHandler()
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    screen.setFormatter(logging.Formatter("simmim: %(message)s"))
    screen.setLevel(logging.WARNING)
    for handler in (file, screen):
        _log.addHandler(handler)
    _log.setLevel(logging.DEBUG)
    return [file, screen]


# ------------------------------------------------------------------------------------------------------- beginning, again


def _before(folder: RunFolder, config: Settings) -> Mapping[str, Any] | None:
    """What the run said of itself when it began, if it did and is the same run."""
    if not (folder.recipe.exists() and folder.derived.exists()):
        return None
    then = _completed(read_yaml(folder.recipe.read_text(encoding="utf-8")), type(config))
    changed = [
        f"{path}: {then!r} then, {now!r} now"
        for path, then, now in differences(then, to_tree(config))
        if path.split(".")[0] not in _MAY_DIFFER
    ]
    if changed:
        raise RecipeError(
            f"{folder} was begun with another recipe, and would not end as it should:\n  "
            + "\n  ".join(changed)
            + "\nresume it with the recipe it began with (machine.*, monitor.* and output.* may change), or choose another "
            "--out"
        )
    return json.loads(folder.derived.read_text(encoding="utf-8"))


def _completed(then: Tree, model: type[Settings]) -> Tree:
    """A recipe of a version that had fewer settings, with the others as they are by default."""
    try:
        return to_tree(load(model, then))
    except RecipeError:  # it has settings that are no more: the differences will name them
        return then


def _write_beginning(
    folder: RunFolder, config: Settings, derived: Mapping[str, Any], before: Mapping[str, Any] | None
) -> None:
    """Save the recipe, complete, and beside it what follows from it, before anything starts."""
    for name in ("images", "fingerprint"):
        if before is not None and before[name] != derived[name]:
            raise RunError(
                f"the data changed since {folder} was begun ({before['images']} images then, {derived['images']} now), so "
                "it would not end as it should; restore them, or begin a new run"
            )
    known: Mapping[str, str] = before.get("digests", {}) if before is not None else {}
    for setting, digest in derived.get("digests", {}).items():
        if known.get(setting, digest) != digest:
            raise RunError(
                f"the file that {setting} names is another one than when {folder} was begun (it had the digest "
                f"{known[setting][:12]}, now {digest[:12]}), so the run would not end as it should; restore it, or begin a "
                "new run"
            )
    if before is None:
        text = json.dumps({**derived, "environment": environment()}, indent=2)
        write_text_atomically(folder.derived, text + "\n")
        write_text_atomically(folder.recipe, write_yaml(config))


def environment() -> dict[str, Any]:
    """What the result may depend on beside recipe and data."""
    return {
        "simmim": __version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "world": int(os.environ.get("WORLD_SIZE", 1)),
        "command": shlex.join(sys.argv),
        "git": _git_state(),
    }


def _git_state() -> str | None:
    """The commit the command was given in, if in any."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except OSError:  # no git here: nothing to say
        return None
    return answer.stdout.strip() or None


# ------------------------------------------------------------------------------------------------------- pieces of a build


def build_schedule(config: TrainingConfig, *, images: int) -> Schedule:
    """The schedule in steps, its learning rates scaled with the batch."""
    scale = config.optimizer.lr_scale(config.batch)
    schedule = Schedule(
        config.schedule,
        peak_lr=config.optimizer.lr * scale,
        lr_scale=scale,
        steps_per_epoch=max(images // config.batch, 1),
    )
    if schedule.total_steps < 1:
        raise ValueError(f"schedule.duration={config.schedule.duration} is no step at all; the least is 1 step")
    if schedule.warmup_steps > schedule.total_steps:
        _log.warning(
            "schedule.warmup=%s is %d steps, longer than the whole run of %d: the learning rate ends at %.3g and never "
            "reaches its peak of %.3g; set a shorter one, such as schedule.warmup='%d steps'",
            config.schedule.warmup, schedule.warmup_steps, schedule.total_steps, schedule.lr(schedule.total_steps - 1),
            schedule.peak_lr, max(schedule.total_steps // 10, 1),
        )  # fmt: skip
    return schedule


def assemble(
    config: TrainingConfig,
    session: Session,
    *,
    module: nn.Module,
    groups: list[Group],
    schedule: Schedule,
    feed: Feed,
    about: Mapping[str, Any],
    quarantine: Quarantine,
) -> Run:
    """The run of a task, with precision, processes and compilation applied; the task adds how it is judged."""
    processes = session.processes
    if config.machine.precision == "fp16" and processes.device.type == "cpu" and processes.is_main:
        _log.warning(
            "machine.precision=fp16 is for GPUs; on a CPU it takes many times as long as fp32 (19 times where it was "
            "measured): add machine.precision=fp32"
        )
    if config.machine.compile:
        module.compile()

    def begin_step(step: int) -> None:
        torch.manual_seed(seed_of(config.seed, "layers", step, processes.rank))

    def note_bad_files() -> None:
        found = processes.gather(feed.take_problems())
        new = processes.from_main(lambda: sum(quarantine.add(problems) for problems in found))
        if new and processes.is_main:
            _log.warning("%d files could not be read, and were replaced: see %s", new, session.folder.bad_files)

    return Run(
        folder=session.folder,
        bare=module,
        module=processes.wrap(module),
        optimizer=build_adamw(groups, config.optimizer),
        optimizer_config=config.optimizer,
        schedule=schedule,
        output=config.output,
        precision=Precision(config.machine.precision, processes.device),
        products="torch" if config.machine.compile else config.machine.products,
        processes=processes,
        batch=config.batch,
        batches=feed.steps_from,
        micro_batches=feed.loader(0).micro_batches,
        begin_step=begin_step,
        about=about,
        at_report=note_bad_files,
    )


def open_quarantine(session: Session, listed: int, problems: Mapping[str, str], *, share: float) -> Quarantine:
    """The list of bad files, with those that the index already found.

    Args:
        session: where the run takes place; the main process keeps the list.
        listed: how many files there are, bad ones included.
        problems: what the index found, path to reason.
        share: how many of them may be bad.
    """

    def open_it() -> Quarantine:
        quarantine = Quarantine(session.folder.bad_files, total=listed, share=share)
        quarantine.add(problems)
        return quarantine

    return session.processes.from_main(open_it)


def describe(run: Run, source: Source, *, reads: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """What follows from recipe, data and machine.

    Args:
        run: the run.
        source: what it trains on.
        reads: other files that decide the result, by the setting that names them; a run goes on with the same ones only.
    """
    digests = {setting: digest_of(path) for setting, path in (reads or {}).items()}
    return {
        **({"digests": digests} if digests else {}),
        "images": len(source),
        "fingerprint": source.fingerprint,
        "steps_per_epoch": run.schedule.steps_per_epoch,
        "total_steps": run.total_steps,
        "warmup_steps": run.schedule.warmup_steps,
        "peak_lr": run.schedule.peak_lr,
        "accumulation": run.micro_batches,
        "parameters": sum(parameter.numel() for parameter in run.bare.parameters()),
    }
