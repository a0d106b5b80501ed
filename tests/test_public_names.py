import subprocess
import sys

import pytest

import simmim

PROMISED = [
    "Interrupted",
    "MaskedPrediction",
    "SimMIM",
    "Wanted",
    "__version__",
    "doctor",
    "embed",
    "evaluate",
    "explain",
    "export_weights",
    "finetune",
    "import_weights",
    "list_recipes",
    "load",
    "load_encoder",
    "pretrain",
    "probe",
    "reconstruct",
    "resolve",
]


def test_the_public_names_are_the_promised_ones() -> None:
    assert simmim.__all__ == PROMISED == sorted(PROMISED)
    assert dir(simmim) == PROMISED


@pytest.mark.parametrize("name", PROMISED)
def test_a_public_name_is_what_it_says(name: str) -> None:
    found = getattr(simmim, name)
    if name == "__version__":
        assert found.count(".") == 2
    else:
        assert found.__name__ == name
        assert found.__doc__


def test_a_name_that_is_not_there_is_said() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'pretain'"):
        simmim.pretain  # noqa: B018  # pyright: ignore


@pytest.mark.parametrize("module", ["simmim", "simmim.cli", "simmim.config"])
def test_the_command_line_answers_before_torch_is_loaded(module: str) -> None:
    look = f"import sys, {module}; print(sorted({{'torch', 'timm', 'numpy', 'torchvision'}} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
