import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simmim.data import (
    Batch,
    CentreCrop,
    RandomCrop,
    Samples,
    TrainingBatches,
    TrainingLoader,
    evaluation_batches,
    open_source,
    order,
)


def batches(**options: Any) -> list[list[tuple[int, int]]]:
    options = {"count": 23, "batch": 6, "micro_batch": 2, "seed": 0, "start_step": 0, "total_steps": 9} | options
    return list(TrainingBatches(**options))


def keys(found: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    return [key for batch in found for key in batch]


@pytest.fixture
def samples(folder: Path) -> Samples:
    return Samples(open_source(folder, labelled=True), view=RandomCrop(), size=(16, 16), channels=3, seed=0)


def loader(samples: Samples, **options: Any) -> TrainingLoader:
    options = {"batch": 8, "micro_batch": 3, "seed": 0, "start_step": 0, "total_steps": 5, "workers": 0} | options
    return TrainingLoader(samples, **options)


def test_an_order_is_a_permutation_of_its_own() -> None:
    first = order(1, 2, 1000)
    assert np.array_equal(np.sort(first), np.arange(1000))
    assert np.array_equal(order(1, 2, 1000), first)
    for other in (order(1, 3, 1000), order(2, 2, 1000)):
        assert (other == first).sum() < 20
    places = np.array([order(0, epoch, 10) for epoch in range(2000)])
    assert np.abs(places.mean(0) - 4.5).max() < 0.3


def test_an_epoch_visits_no_image_twice_and_drops_the_rest() -> None:
    found = keys(batches())
    for epoch in range(3):
        visited = [index for of, index in found if of == epoch]
        assert visited == order(0, epoch, 23)[:18].tolist()
    assert len(found) == 54


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 9), st.integers(1, 6), st.integers(0, 12))
def test_processes_together_see_what_one_would(
    batch: int, more: int, micro_batch: int, world: int, start_step: int
) -> None:
    batch = max(batch, world)
    options: dict[str, Any] = {"count": batch + more - 1, "batch": batch, "start_step": start_step, "total_steps": 13}
    alone = keys(batches(micro_batch=batch, **options))
    ranks = [
        TrainingBatches(seed=0, micro_batch=micro_batch, rank=rank, world=world, **options) for rank in range(world)
    ]
    parts = np.array_split(np.arange(batch), world)
    assert [list(range(batch))[rank.share_of_rank] for rank in ranks] == [part.tolist() for part in parts]
    running = [iter(rank) for rank in ranks]
    together: list[tuple[int, int]] = []
    for _ in range(start_step, 13):
        for rank, micro in zip(ranks, running, strict=True):
            step = list(islice(micro, rank.micro_batches))
            assert max(map(len, step)) <= micro_batch
            together += keys(step)
    assert together == alone
    assert all(len(list(rank)) == len(rank) for rank in ranks)


def test_a_run_that_goes_on_sees_what_an_uncut_one_would() -> None:
    whole = batches()
    for step in range(10):
        assert batches(start_step=step) == whole[3 * step :]


def test_impossible_batches_say_why() -> None:
    with pytest.raises(ValueError, match="has 12 images, a batch needs 16; set batch='12 images' or less"):
        batches(count=12, batch=16)
    with pytest.raises(ValueError, match="a batch of 6 images cannot be shared by 8 processes"):
        batches(world=8)
    with pytest.raises(ValueError, match="micro batch of 0 images"):
        batches(micro_batch=0)


def test_workers_change_nothing(samples: Samples) -> None:
    alone, shared = (list(map(list, loader(samples, workers=workers))) for workers in (0, 2))
    assert [[len(batch) for batch in step] for step in alone] == [[3, 3, 2]] * 5
    for step, other in zip(alone, shared, strict=True):
        for ours, theirs in zip(step, other, strict=True):
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.labels, theirs.labels)
            assert torch.equal(ours.indices, theirs.indices)


def test_ranks_and_restarts_give_the_tensors_of_one_uncut_run(samples: Samples) -> None:
    whole = [torch.cat([batch.images for batch in step]) for step in loader(samples)]
    ranks = [loader(samples, rank=rank, world=3, micro_batch=2, start_step=2) for rank in range(3)]
    assert [rank.micro_batches for rank in ranks] == [2, 2, 1]
    for step, parts in zip(whole[2:], zip(*ranks, strict=True), strict=True):
        assert torch.equal(torch.cat([batch.images for part in parts for batch in part]), step)


def test_a_step_left_early_does_not_disturb_the_next(samples: Samples) -> None:
    def first(step: Any) -> Batch:
        return next(step)

    found = [first(step).indices for step in loader(samples)]
    expected = [next(iter(list(step))).indices for step in loader(samples)]
    assert all(map(torch.equal, found, expected))
    assert len(loader(samples)) == len(found) == 5
    assert loader(samples).steps_per_epoch == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_state_is_left_alone(samples: Samples, workers: int) -> None:
    before, legacy = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    for step in loader(samples, workers=workers):
        list(step)
    list(evaluation_batches(samples, batch=5, workers=workers))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], legacy)


def test_evaluation_sees_every_image_once(folder: Path) -> None:
    samples = Samples(open_source(folder), view=CentreCrop(), size=(16, 16), channels=3, seed=0)
    for world in (1, 2, 5, 30):
        found = [
            batch.indices.tolist()
            for rank in range(world)
            for batch in evaluation_batches(samples, batch=4, workers=0, rank=rank, world=world)
        ]
        assert [index for batch in found for index in batch] == list(range(24))
        assert max(map(len, found)) <= 4


PROGRAM = """
import sys, time
from simmim.data import *
samples = Samples(open_source(sys.argv[1]), view=RandomCrop(), size=(16, 16), channels=3, seed=0)
loader = TrainingLoader(samples, batch=8, micro_batch=4, seed=0, start_step=0, total_steps=10**6, workers=2)
steps = iter(loader)
next(next(steps))
import multiprocessing
try:
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    next(next(steps))
    print("in peace", flush=True)
"""


def run(folder: Path) -> tuple["subprocess.Popen[str]", list[int]]:
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    pipe = subprocess.PIPE
    program = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert program.stdout is not None
    return program, [int(pid) for pid in program.stdout.readline().split()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_leave_ctrl_c_to_their_parent_and_die_with_it(folder: Path) -> None:
    (killed, orphans), (stopped, children) = run(folder), run(folder)
    assert len(orphans) == len(children) == 2
    killed.kill()
    os.killpg(stopped.pid, signal.SIGINT)
    output, errors = stopped.communicate(timeout=240)
    assert (output.strip(), errors, stopped.returncode) == ("in peace", "", 0)
    killed.communicate()
    deadline = time.monotonic() + 15  # torch's workers look for their parent every five seconds
    while not all(map(gone, [*orphans, *children])) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert all(map(gone, [*orphans, *children]))
