import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from simmim import tensors as module
from simmim.files import DiskFull
from simmim.tensors import DamagedFile, read_tensors, read_words, write_tensors

CONTENTS = {
    "matrix": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False, True]),
    "turned": torch.arange(6, dtype=torch.float64).reshape(2, 3).t(),
    "empty": torch.zeros(0, 3),
}
WORDS = {"state": '{"step": 20, "name": "blåbær"}', "zeta": "last", "alpha": "first"}
ONE_PROCESS = """
import sys, torch
from pathlib import Path
from simmim.tensors import write_tensors
names = list({"c", "a", "b", "dd", "e"})
write_tensors(Path(sys.argv[1]), {n: torch.full((2,), float(ord(n[0]))) for n in names}, {n: n * 2 for n in reversed(names)})
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "file.safetensors", CONTENTS, WORDS)
    return tmp_path / "file.safetensors"


def test_what_was_written_is_read_bit_for_bit(file: Path) -> None:
    tensors, words = read_tensors(file)
    assert tensors.keys() == CONTENTS.keys()
    for name, tensor in CONTENTS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(tensors[name], tensor)
    assert torch.signbit(tensors["half"][1])
    assert {name: words[name] for name in WORDS} == WORDS
    assert read_words(file) == words


def test_any_reader_of_safetensors_can_read_it(file: Path) -> None:
    assert torch.equal(load_file(file)["matrix"], CONTENTS["matrix"])


def test_equal_contents_make_equal_bytes_in_every_process(tmp_path: Path) -> None:
    written: list[bytes] = []
    for seed in ("1", "2", "3"):
        path = tmp_path / f"{seed}.safetensors"
        subprocess.run(
            [sys.executable, "-c", ONE_PROCESS, str(path)], env={**os.environ, "PYTHONHASHSEED": seed}, check=True
        )
        written.append(path.read_bytes())
    assert written[0] == written[1] == written[2]


def _damage_is_found(path: Path, damaged: bytes) -> bool:
    path.write_bytes(damaged)
    try:
        read_tensors(path)
    except DamagedFile:
        return True
    return False


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_every_single_damaged_byte_is_found(file: Path, flip: int) -> None:
    whole = file.read_bytes()
    header_end = 8 + int.from_bytes(whole[:8], "little")
    unseen = [
        whole[max(position - 12, 0) : position + 4]
        for position in range(len(whole))
        if not _damage_is_found(file, whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
    ]
    assert (header_end, unseen) == (header_end, [])


def test_every_cut_is_found(file: Path) -> None:
    whole = file.read_bytes()
    assert [length for length in range(len(whole)) if not _damage_is_found(file, whole[:length])] == []
    assert _damage_is_found(file, whole + b"\0")


def test_swapped_shapes_and_exchanged_tensors_are_found(file: Path) -> None:
    whole = file.read_bytes()
    assert whole.count(b'"shape":[3,4]') == 1
    assert _damage_is_found(file, whole.replace(b'"shape":[3,4]', b'"shape":[4,3]'))
    assert _damage_is_found(file, whole.replace(b'"dtype":"F32","shape":[3,4]', b'"dtype":"I32","shape":[3,4]'))


@pytest.mark.parametrize("read", [read_tensors, read_words])
def test_what_is_no_such_file_is_said(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "text").write_text("hello")
    for path in (tmp_path / "text", tmp_path / "absent"):
        with pytest.raises(DamagedFile, match=f"{path.name} cannot be read"):
            read(path)


def test_a_file_without_a_digest_is_not_ours(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "theirs.safetensors")
    with pytest.raises(DamagedFile, match="not written by simmim"):
        read_tensors(tmp_path / "theirs.safetensors")


def test_a_full_disk_keeps_the_file_that_was_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def fill_the_disk(tensors: object, part: Path, metadata: object) -> None:
        part.write_bytes(b"as much as fits")
        raise SafetensorError(f"I/O error: No space left on device (os error {errno.ENOSPC})")

    monkeypatch.setattr(module, "save_file", fill_the_disk)
    with pytest.raises(DiskFull, match=r"file\.safetensors could not be written"):
        write_tensors(file, {"a": torch.zeros(3)}, {})
    assert file.read_bytes() == before
    assert [item.name for item in file.parent.iterdir()] == [file.name]
