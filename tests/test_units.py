from typing import Any

import pytest
from pydantic import ValidationError

from simmim.config import RecipeError, Settings, load, read_yaml, write_yaml
from simmim.units import Duration, ImageCount, ImageSize, LabelShare, Pixels, nearest_multiples


class Quantities(Settings, frozen=True):
    side: Pixels = 32
    batch: ImageCount = 2048
    size: ImageSize = (192, 192)
    time: Duration = Duration(amount=100, unit="epochs")
    labels: LabelShare | None = None


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("side", "32 px", 32),
        ("side", "32px", 32),
        ("side", 48, 48),
        ("side", "1e2 px", 100),
        ("batch", "1 image", 1),
        ("batch", "4096 images", 4096),
        ("size", "192 px", (192, 192)),
        ("size", 64, (64, 64)),
        ("size", "96x160 px", (96, 160)),
        ("size", "96 × 160", (96, 160)),
        ("size", [96, 160], (96, 160)),
        ("time", "1 epoch", Duration(amount=1, unit="epochs")),
        ("time", "0.5 epochs", Duration(amount=0.5, unit="epochs")),
        ("time", "500 steps", Duration(amount=500, unit="steps")),
        ("labels", "1 %", LabelShare(amount=1, unit="%")),
        ("labels", "0.5%", LabelShare(amount=0.5, unit="%")),
        ("labels", "10 per class", LabelShare(amount=10, unit="per class")),
        ("labels", None, None),
    ],
)
def test_a_written_quantity_is_understood(name: str, written: Any, meant: Any) -> None:
    assert getattr(load(Quantities, {name: written}), name) == meant


@pytest.mark.parametrize(
    ("name", "written", "said"),
    [
        ("side", "32 images", "counts px"),
        ("side", "32.5 px", "nearest: 32 px"),
        ("side", "many", "is not a quantity"),
        ("side", "-4 px", "is not a quantity"),
        ("side", True, "side = True"),
        ("batch", "2048 px", "counts images"),
        ("batch", False, "batch = False"),
        ("size", "wide", "is not a quantity"),
        ("size", [96], "has too few entries"),
        ("size", True, "size = True"),
        ("time", 100, "has no unit; allowed: epochs, steps"),
        ("time", "3 hours", "the unit 'hours'; allowed: epochs, steps"),
        ("time", True, "time = True"),
        ("labels", "10", "has no unit; allowed: per class, %"),
    ],
)
def test_what_is_no_such_quantity_is_refused_in_words(name: str, written: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=name) as caught:
        load(Quantities, {name: written})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "steps_per_epoch", "steps"),
    [
        ("100 epochs", 625, 62500),
        ("500 steps", 625, 500),
        ("0.5 epochs", 625, 312),
        ("1.5 epochs", 10, 15),
        ("0 steps", 9, 0),
    ],
)
def test_a_duration_becomes_steps(text: str, steps_per_epoch: int, steps: int) -> None:
    assert load(Quantities, {"time": text}).time.steps(steps_per_epoch) == steps


@pytest.mark.parametrize("text", ["100 epochs", "0.25 epochs", "1250000 steps", "1251249 steps", "33.3333333 epochs"])
def test_a_duration_is_written_as_it_was_read(text: str) -> None:
    time = Duration.model_validate(text)
    assert Duration.model_validate(str(time)) == time


def test_written_quantities_are_read_as_the_same_object() -> None:
    settings = Quantities(side=8, size=(96, 160), labels=LabelShare(amount=12.5, unit="%"))
    text = write_yaml(settings)
    assert read_yaml(text) == {
        "side": "8 px",
        "batch": "2048 images",
        "size": "96x160 px",
        "time": "100 epochs",
        "labels": "12.5 %",
    }
    assert load(Quantities, read_yaml(text)) == settings


def test_quantities_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Duration(amount=1, unit="epochs").amount = 2  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("number", "of", "said"), [(200, 32, "192 or 224"), (20, 32, "32"), (32, 32, "32 or 64"), (33, 16, "32 or 48")]
)
def test_the_nearest_multiples_are_named(number: int, of: int, said: str) -> None:
    assert nearest_multiples(number, of=of) == said
