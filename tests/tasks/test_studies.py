"""Studies: ordinary runs, done once; a failed cell is a failed cell; the table is what the runs say."""

import csv
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from simmim.config import RecipeError, write_yaml
from simmim.data import Statistics
from simmim.masking import RandomMasking
from simmim.targets import DiscreteVAE, VAEShape, save_tokenizer
from simmim.tasks.pretrain import PretrainConfig, build_model
from simmim.tasks.studies import ablate, cells_to_run, list_studies, read_study
from simmim.tasks.studies.study import study_names
from tasks.support import Process, complete, folder_of_pictures

pytestmark = pytest.mark.xdist_group("studies")

SMALL = {
    "schedule.duration": "4 steps",
    "schedule.warmup": "1 steps",
    "output.log_every": "2 steps",
    "encoder.embed_dim": 24,
    "encoder.depth": 1,
    "data.split": "train",
    "data.image_size": "32 px",
}
STUDY: dict[str, Any] = {
    "title": "Two ratios, and a cell that cannot be",
    "recipe": "tiny",
    "settings": SMALL,
    "measure": ["finetune", "probe", "knn", "loss", "avgdist", "time", "parameters"],
    "finetune": {
        "settings": {"schedule.duration": "2 steps", "schedule.warmup": "1 steps", "data.labels": "4 per class"}
    },
    "labels": "3 per class",
    "seeds": 2,
    "rows": [
        {
            "label": "random",
            "vary": "masking.ratio",
            "over": [0.3, 0.6],
            "paper": [82.8, None],
            "certainty": "official",
        },
        {"label": "too wide", "settings": {"masking.mask_patch": "24 px"}},
    ],
}


def _write(place: Path, study: dict[str, Any]) -> Path:
    place.write_text(yaml.safe_dump(study), encoding="utf-8")
    return place


def _rows(out: Path, name: str = "study") -> list[dict[str, str]]:
    with (out / name / "results.csv").open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def _without_time(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "time"} for row in rows]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study in it, and all of it done without a cut."""
    place = tmp_path_factory.mktemp("study")
    complete("ablate", str(_write(place / "study.yaml", STUDY)), "--data", "digits", "--out", str(place / "whole"))
    return place


def test_a_study_that_was_killed_and_started_again_gives_the_same_table(place: Path) -> None:
    words = ("ablate", str(place / "study.yaml"), "--data", "digits", "--out", str(place / "cut"))
    process = Process(*words)
    process.until(lambda: len(list((place / "cut" / "runs").glob("*/metrics.jsonl"))) > 1)
    process.kill_all()
    assert len(list((place / "cut" / "runs").glob("*/measured.json"))) < 4
    complete(*words)
    assert _without_time(_rows(place / "cut")) == _without_time(_rows(place / "whole"))


def test_a_cell_that_fails_is_a_failed_cell_and_says_why(place: Path) -> None:
    rows = _rows(place / "whole")
    failed = [row for row in rows if row["failed"]]
    assert [row["row"] for row in failed] == ["too wide", "too wide"]
    assert "24" in failed[0]["failed"]
    assert "nearest" in failed[0]["failed"]
    assert [row["value"] for row in rows if not row["failed"]] == ["0.3", "0.6"] * 2
    assert (place / "whole" / "runs" / f"{failed[0]['run']}.failed.txt").is_file()
    assert "too wide (2 of 2 failed" in (place / "whole" / "study" / "table.md").read_text(encoding="utf-8")


def test_what_is_done_is_not_done_again(place: Path) -> None:
    runs = place / "whole" / "runs"
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/**/*.safetensors")}
    assert before
    ablate(place / "study.yaml", data="digits", out=place / "whole")
    other = {**STUDY, "rows": [{"label": "the same under another name", "settings": {"masking.ratio": 0.6}}]}
    (outcome, _) = ablate(_write(place / "other.yaml", other), data="digits", out=place / "whole")
    assert outcome.folder.name.startswith("random_0.6_")
    assert before == {path: path.stat().st_mtime_ns for path in runs.glob("*/**/*.safetensors")}


def test_the_table_is_the_mean_and_the_deviation_of_the_runs(place: Path) -> None:
    values = [100 * float(row["finetune"]) for row in _rows(place / "whole") if row["value"] == "0.3"]
    (line,) = [
        line
        for line in (place / "whole" / "study" / "table.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| random, 0.3")
    ]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
    assert cells[6] == "1.00x"
    assert cells[-1] == "82.8"
    for picture in ("accuracy_by_ratio.png",):
        assert (place / "whole" / "study" / picture).stat().st_size > 5000


def test_a_training_started_by_a_launcher_is_the_same_training(place: Path) -> None:
    study = {**STUDY, "seeds": 1, "measure": ["loss"], "rows": STUDY["rows"][:1]}
    here = _write(place / "launched.yaml", study)
    found = ablate(here, data="digits", out=place / "launched", launch=sys.executable)
    assert [outcome.failed for outcome in found] == [None, None]
    expected = [float(row["loss"]) for row in _rows(place / "whole") if row["seed"] == "0" and not row["failed"]]
    assert [outcome.numbers.loss for outcome in found] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"measure": ["finetun"]}, "did you mean 'finetune'"),
        ({"rows": [{"label": "x", "vary": "masking.ratio"}]}, "`vary` and `over` go together"),
        ({"rows": [{"label": "x", "vary": "masking.ratio", "over": [0.1, 0.2], "paper": [1.0]}]}, "1 entries for 2"),
        ({"rows": [{"label": "x", "settings": {"masking.rato": 0.5}}]}, "cell 'x'.*did you mean 'masking.ratio'"),
        ({"recipe": "tiney"}, "did you mean 'tiny'"),
    ],
)
def test_a_study_that_cannot_be_used_says_so_before_anything_starts(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=f"(?s){said}"):
        ablate(_write(tmp_path / "study.yaml", {**STUDY, **change}), data="digits", out=tmp_path / "out")
    assert not (tmp_path / "out" / "runs").exists()


def test_a_study_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'table1'"):
        read_study("tabel1")


def test_the_papers_tables_come_at_full_size_each_with_a_small_twin() -> None:
    tables = {f"table{number}" for number in range(1, 6)} | {"figure3"}
    assert set(study_names()) >= tables | {f"{name}_small" for name in tables}
    full = {summary.name: summary.cells for summary in list_studies()}
    assert (full["table2"], full["table3"], full["table5"]) == (4, 6, 2)


@pytest.mark.parametrize("name", [name for name in study_names() if not name.endswith("_small")])
def test_a_study_at_full_size_builds_its_models(name: str, tmp_path: Path) -> None:
    """On the meta device: shapes, and no weights."""
    (tmp_path / "prepared").mkdir()
    np.save(tmp_path / "prepared" / "palette.npy", np.random.default_rng(0).random((512, 3)))
    words = VAEShape(
        channels=3, words=8192, width=4, blocks=1, embedding=4
    )  # the published vocabulary, hardly any weights
    save_tokenizer(tmp_path / "prepared" / "tokenizer.safetensors", DiscreteVAE(words))
    seen: set[str] = set()
    for run in cells_to_run(read_study(name), data="imagenet", prepared=tmp_path / "prepared"):
        config = run.config
        size, patch = config.data.image_size, config.masking.mask_patch  # type: ignore[union-attr]
        assert config.masking(2, image_size=size, patch_size=4, generator=torch.Generator()).any()
        assert size[0] % patch == 0
        parts = write_yaml(config.model_copy(update={"masking": RandomMasking()}))
        if parts in seen:
            continue
        seen.add(parts)
        model = _on_meta(config)
        assert sum(parameter.numel() for parameter in model.parameters()) > 80e6
        assert all(parameter.is_meta for parameter in model.parameters())


def _on_meta(config: PretrainConfig) -> torch.nn.Module:
    with torch.device("meta"):
        return build_model(config, Statistics(3, (0.5,) * 3, (0.25,) * 3, 0))


def test_files_that_targets_need_are_made_once(tmp_path: Path) -> None:
    study = {
        **STUDY,
        "measure": ["loss"],
        "seeds": 1,
        "prepare": {"palette": 4},
        "rows": [
            {"label": "clusters", "settings": {"target": {"kind": "clusters", "centres": "$palette", "stride": "4 px"}}}
        ],
    }
    where = folder_of_pictures(tmp_path / "pictures", 20)
    settings = {name: value for name, value in SMALL.items() if name != "data.split"}
    here = _write(tmp_path / "study.yaml", {**study, "settings": settings})
    (outcome,) = ablate(here, data=where, out=tmp_path / "out")
    assert outcome.failed is None
    made = (tmp_path / "out" / "prepared" / "palette.npy").stat().st_mtime_ns
    ablate(here, data=where, out=tmp_path / "out")
    assert (tmp_path / "out" / "prepared" / "palette.npy").stat().st_mtime_ns == made
