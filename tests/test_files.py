import errno
from pathlib import Path

import pytest

from simmim.files import DiskFull, room_on_disk, write_atomically, write_text_atomically


def test_a_written_file_is_there_and_nothing_else(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "new" / "words.txt", "blåbær\n")
    assert (tmp_path / "new" / "words.txt").read_bytes() == "blåbær\n".encode()
    assert [item.name for item in (tmp_path / "new").iterdir()] == ["words.txt"]


def test_a_file_name_that_is_no_utf8_can_be_written_about(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "list.txt", b"caf\xe9.jpg".decode(errors="surrogateescape"))
    assert (tmp_path / "list.txt").read_bytes() == b"caf\xe9.jpg"


def test_a_failure_in_the_middle_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("old")

    def break_off(part: Path) -> None:
        part.write_text("half of the n")
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        write_atomically(path, break_off)
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["words.txt"]


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("old")
    seen: list[str] = []

    def write(part: Path) -> None:
        part.write_text("new")
        seen.append(path.read_text())

    write_atomically(path, write)
    assert (seen, path.read_text()) == (["old"], "new")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_a_sentence_and_the_old_file_stays(tmp_path: Path, number: int) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")

    def fill_the_disk(part: Path) -> None:
        part.write_bytes(b"as much as fi")
        raise OSError(number, "no room")

    with pytest.raises(DiskFull, match=r"weights\.bin could not be written") as caught:
        write_atomically(path, fill_the_disk)
    assert str(tmp_path) in str(caught.value)
    assert "MiB free" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["weights.bin"]


def test_a_full_disk_is_told_even_where_the_folder_is_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="deeper"), room_on_disk(tmp_path / "deep" / "deeper", "anything"):
        raise OSError(errno.ENOSPC, "no room")


def test_another_error_of_the_system_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), room_on_disk(tmp_path, "anything"):
        raise PermissionError(errno.EACCES, "not yours")
