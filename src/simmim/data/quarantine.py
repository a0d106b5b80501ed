"""The list of files that could not be read, kept beside a run."""

from collections.abc import Mapping
from pathlib import Path

from simmim.files import write_text_atomically


class Quarantine:
    """Collects bad files, writes them to a list (path, tab, reason), and stops the run when there are too many.

    A list that is there already is read back, so a run that goes on forgets nothing. `total` is the number of files of
    the data set, the bad ones included.
    """

    def __init__(self, path: Path, *, total: int, share: float) -> None:
        self._path, self._total, self._share = path, total, share
        self.files: dict[str, str] = {}
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            self.files = {name: reason for name, _, reason in (line.partition("\t") for line in lines)}

    def __len__(self) -> int:
        return len(self.files)

    def add(self, problems: Mapping[str, str]) -> int:
        """Note bad files, path to reason; returns how many of them are new.

        Raises `ValueError` when more than the allowed share of the data set is bad.
        """
        noted = {_one_line(path): _one_line(reason) for path, reason in problems.items()}
        new = noted.keys() - self.files.keys()
        if new:
            self.files |= {path: noted[path] for path in new}
            write_text_atomically(
                self._path, "".join(f"{path}\t{reason}\n" for path, reason in sorted(self.files.items()))
            )
        if len(self.files) > self._share * self._total:
            raise ValueError(self._too_many())
        return len(new)

    def _too_many(self) -> str:
        path, reason = min(self.files.items())
        return (
            f"{len(self.files)} of {self._total} files ({100 * len(self.files) / max(1, self._total):.3g} %) cannot be "
            f"read, more than data.bad_share allows ({100 * self._share:g} %); "
            f"the first: {path} {reason}; all of them: {self._path}"
        )


def _one_line(text: str) -> str:
    return text.replace("\t", " ").replace("\n", " ").replace("\r", " ")
