"""Official files of the published sizes: 86 to 90 million weights, read, asked, and written again."""

from collections.abc import Iterator

import pytest
import torch

from reference import official
from simmim.tasks.export import export_weights
from simmim.tasks.load import load
from simmim.weights.pickles import read_foreign
from weights.foreign import PUBLISHED, Case, official_case

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("published sizes")]

PARAMETERS = {"swin": 89_874_104, "swinv2": 90_042_744, "vit": 86_256_720}
"""Of the whole masked image model; the first is that of the official file."""


@pytest.fixture(scope="module", params=PUBLISHED)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, module_monkeypatch: pytest.MonkeyPatch
) -> Iterator[Case]:
    """No configuration: the tensors must tell. Weights spread as the official code draws them, but for every one of them."""
    module_monkeypatch.setattr(official, "SPREAD", 0.02)
    folder = tmp_path_factory.mktemp(request.param)
    yield official_case(request.param, folder, config=False, shape=PUBLISHED[request.param], images=1)
    for path in folder.rglob("*.*"):  # a third of a gigabyte each
        path.unlink()


@pytest.fixture(scope="module")
def module_monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_features_prediction_and_loss_are_those_of_the_published_formulas(case: Case) -> None:
    model = load(case.path)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[case.path.stem]
    with torch.no_grad():
        features, said = model.features(case.images, case.mask), model(case.images, case.mask)
    for ours, theirs in zip((features, said.prediction, said.loss), case[4:], strict=True):
        assert float(theirs.abs().max()) > 0.1
        assert float((ours - theirs).abs().max()) < 1e-5


def test_the_official_layout_and_back_is_equal_bit_for_bit(case: Case) -> None:
    export_weights(case.path, to="official", out=case.path.parent / "out")
    back = read_foreign(case.path.parent / "out" / "checkpoint.pth").tensors
    assert back.keys() == case.state.keys()
    assert all(torch.equal(back[name], case.state[name]) for name in back)
