import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simmim.tensors import DamagedFile
from simmim.weights.pickles import UnsafeFile, read_foreign
from weights.foreign import official_config


class Malicious:
    """What its pickle asks for would leave a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_and_a_pickled_configuration_are_read(zipped: bool, tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    beside = {"config": official_config("swin", 64, 0), "best": np.float64(3.0), "curve": np.ones(2), "at": Path("x")}
    torch.save({"model": {"module.a": torch.ones(2)}, **beside}, file, _use_new_zipfile_serialization=zipped)
    read = read_foreign(file)
    assert torch.equal(read.tensors["a"], torch.ones(2))
    assert read.settings["DATA"]["IMG_SIZE"] == 64


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_malicious_pickle_is_refused_and_not_run(zipped: bool, protocol: int, tmp_path: Path) -> None:
    file, mark = tmp_path / "evil.pth", tmp_path / "mark"
    content = {"model": {"a": torch.ones(2)}, "x": Malicious(mark)}
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeFile, match=r"its pickle asks for \w+\.system, .* Nothing of it was run"):
        read_foreign(file)
    assert not mark.exists()


def test_a_plain_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"model": Malicious(tmp_path / "mark")}))
    with pytest.raises(UnsafeFile, match=r"its pickle asks for \w+\.system, .* Nothing of it was run"):
        read_foreign(tmp_path / "evil.pkl")
    assert not (tmp_path / "mark").exists()


def test_a_later_protocol_is_not_called_damage(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "late.pth", pickle_protocol=4)
    with pytest.raises(
        ValueError, match="a protocol of pickle that torch's safe reader does not know; ask for safetensors"
    ):
        read_foreign(tmp_path / "late.pth")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_file_is_said_to_be_cut(zipped: bool, share: float, tmp_path: Path) -> None:
    file = tmp_path / "cut.pth"
    torch.save({"model": {"a": torch.ones(1000)}}, file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DamagedFile, match="cut or damaged" if share else "is empty"):
        read_foreign(file)


def test_what_is_no_file_of_weights_is_said(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>404</html>")
    with pytest.raises(DamagedFile, match="is no file of weights"):
        read_foreign(tmp_path / "page.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no weights"):
        read_foreign(tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"there is no file .*page.pt'; did you mean 'page.pth'\?"):
        read_foreign(tmp_path / "page.pt")
    with pytest.raises(ValueError, match="there is no file"):
        read_foreign(tmp_path / "nothing.pth")
