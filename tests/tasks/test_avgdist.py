"""The planner of masks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from simmim.tasks.avgdist import draw_plan, good_band, measure_setting, plan_masks, read_image_size

# Measured independently at 192 px, 40 masks a setting, so good to some tenths; the means over all masks of nine cells are
# exact (every choice enumerated).
SAMPLED = {
    4: (1.3, 1.4, 1.5, 1.6, 1.8, 2.1, 2.5, 3.3, 5.1),
    8: (2.1, 2.2, 2.5, 2.8, 3.1, 3.7, 4.5, 6.1, 9.9),
    16: (3.8, 4.2, 4.6, 5.2, 6.1, 7.4, 9.3, 12.2, 20.4),
    32: (7.5, 8.6, 9.9, 11.3, 12.8, 15.6, 19.1, 26.3, 45.4),
}
ENUMERATED_64 = (17.10, 19.47, 22.02, 25.21, 29.60, 36.28, 47.31, 68.60)


@pytest.mark.parametrize(("mask_patch", "values"), SAMPLED.items())
def test_random_masks_have_the_distances_that_were_sampled_elsewhere(
    mask_patch: int, values: tuple[float, ...]
) -> None:
    for step, value in enumerate(values, 1):
        found = measure_setting((192, 192), mask_patch=mask_patch, ratio=step / 10).avgdist
        assert found == pytest.approx(value, abs=max(0.45, 0.04 * value)), step / 10


def test_coarse_masks_have_the_distances_of_all_their_choices() -> None:
    found = [measure_setting((192, 192), mask_patch=64, ratio=step / 10).avgdist for step in range(1, 9)]
    assert found == pytest.approx(list(ENUMERATED_64), rel=0.02)


def test_the_plan_advises_the_papers_own_choice_at_its_own_size(tmp_path: Path) -> None:
    plan = plan_masks((192, 192))
    best = plan.advice[0]
    assert (best.strategy, best.mask_patch, best.ratio) == ("random", 32, 0.6)
    assert all(10 <= setting.avgdist <= 20 for setting in plan.advice)
    assert {(s.strategy, s.mask_patch) for s in plan.settings} >= {("random", 4), ("square", 32), ("block", 16)}
    draw_plan(plan, tmp_path / "plan.png")
    with Image.open(tmp_path / "plan.png") as picture:
        assert picture.width > 600


def test_the_band_grows_with_the_image() -> None:
    assert good_band((192, 192)) == (10, 20)
    assert good_band((384, 384)) == (20, 40)


@pytest.mark.parametrize(("text", "size"), [("192", (192, 192)), ("192 px", (192, 192)), ("96x160", (96, 160))])
def test_an_image_size_is_read_as_a_person_writes_it(text: str, size: tuple[int, int]) -> None:
    assert read_image_size(text) == size


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'square'"):
        measure_setting((192, 192), strategy="sqare")
    with pytest.raises(ValueError, match="nearest: 192 or 224"):
        measure_setting((200, 200))
    with pytest.raises(ValueError, match="not a quantity"):
        read_image_size("large")
    with pytest.raises(ValueError, match="no mask patch"):
        plan_masks((191, 191))


def test_one_setting_is_one_object() -> None:
    words = ["avgdist", "--image-size", "192", "--mask-patch", "32", "--ratio", "0.6", "--json"]
    done = subprocess.run([sys.executable, "-m", "simmim", *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["avgdist"] == pytest.approx(15.6, abs=0.5)
