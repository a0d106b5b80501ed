"""Runs that never took place: reports and pictures as a run writes them, for pages and verdicts."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from simmim.report import Range, Row, RunFacts, StepPicture, draw_rows

FILLINGS = {"fixed_loss_mean_colour": 0.8, "fixed_loss_nearest_pixel": 0.5, "fixed_loss_smooth": 0.55}


def falling(share: float) -> float:
    """A loss that falls from 0.8 and levels off at 0.3."""
    return 0.3 + 0.5 * math.exp(-8 * share)


def made_up_rows(
    loss: Callable[[float], float | None] = falling, *, reports: int = 40, **more: Any
) -> list[dict[str, Any]]:
    """Reports every ten steps, the fixed images judged at each, with other numbers where `more` has them."""
    rows: list[dict[str, Any]] = []
    for number in range(1, reports + 1):
        value = loss(number / reports)
        machine = {"images_per_second": 100.0, "data_wait": 0.1, "memory_gib": 1.0, "gradient_norm": 0.5, "lr": 1e-3}
        row = {"step": 10 * number, "epoch": number / 4, "loss": value, **machine, "skipped_steps": 0}
        rows.append({**row, "avgdist": 14.0, "fixed_loss": value, **FILLINGS, **more})
    return rows


def made_up_facts(rows: list[dict[str, Any]] | None = None, **more: Any) -> RunFacts:
    """A run of 400 steps at 192 px."""
    facts = RunFacts(
        name="first",
        folder="runs/first",
        task="pretrain",
        recipe="task: pretrain\n",
        settings={"task": "pretrain", "batch": "16 images"},
        derived={"total_steps": 400, "images": 1797, "environment": {"command": "simmim pretrain tiny --data digits"}},
        rows=made_up_rows() if rows is None else rows,
        complete=True,
        image_size=(192, 192),
        good_avgdist=Range(10, 20),
    )
    return replace(facts, **more)


def made_up_pictures(
    folder: Path, steps: list[int], *, images: int = 3, size: tuple[int, int] = (24, 32)
) -> list[StepPicture]:
    """Pictures in which every panel has one grey of its own: original, masked, and predicted brighter at every step."""
    pictures: list[StepPicture] = []
    for number, step in enumerate(steps):
        greys = [(0.1 + 0.2 * image, 0.5, 0.9 * (number + 1) / len(steps)) for image in range(images)]
        rows = [Row([torch.full((3, *size), grey) for grey in one]) for one in greys]
        pictures.append(StepPicture(step, folder / f"step_{step:08d}.png"))
        draw_rows(rows, titles=("original", "masked", "predicted"), note="a note").save(pictures[-1].path)
    return pictures
