"""The browser that opens pages in tests. As a program: fetch a headless Chromium from the npm registry into the environment.

The package holds the browser itself, packed for servers without a screen; npm checks what it downloads.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

PACKAGE = "@sparticuz/chromium@153.0.0"
PLACE = Path(sys.prefix) / "browser"
_CURE = (
    "`make test-browser` fetches one by npm where there is a network, `apt-get install chromium` does too, and "
    "SIMMIM_CHROMIUM=PATH names one of your own"
)
_UNPACK = """
const fs = require("fs"), zlib = require("zlib");
for (const file of process.argv.slice(1))
  fs.writeFileSync(file.replace(/[.]br$/, ""), zlib.brotliDecompressSync(fs.readFileSync(file)));
"""


def find_browser() -> Path:
    """An own Chromium first (`SIMMIM_CHROMIUM`), then that of the environment, then the system's."""
    own = os.environ.get("SIMMIM_CHROMIUM")
    found = [own, PLACE / "chromium", *map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))]
    for path in found:
        if path and Path(path).is_file():
            return Path(path)
    raise FileNotFoundError(f"there is no Chromium to open report.html with; {_CURE}")


def libraries_of(browser: Path) -> dict[str, str]:
    """The environment in which the packed browser finds the libraries that came with it."""
    return {**os.environ, "LD_LIBRARY_PATH": f"{browser.parent / 'lib'}:{browser.parent}"}


class Unreachable(Exception):  # noqa: N818 - reads as what it says about the browser
    """A browser that cannot be brought here: no npm, or no network. The message says what helps."""


def fetch(*, tries: int = 3, seconds: float = 120) -> Path:
    """Bring the browser here, once; of several processes that ask, one fetches and the others wait for it.

    Raises:
        Unreachable: where npm is missing, or has failed so many times, each within so many seconds.
    """
    PLACE.parent.mkdir(exist_ok=True)
    with (PLACE.parent / ".browser.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return find_browser()
        except FileNotFoundError:
            print(f"fetching {PACKAGE} into {PLACE}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=PLACE.parent) as name:
            _unpack(_download(Path(name), tries=tries, seconds=seconds), Path(name))
    return PLACE / "chromium"


def _download(folder: Path, *, tries: int, seconds: float) -> Path:
    if shutil.which("npm") is None:
        raise Unreachable(f"npm is not installed, which fetches a Chromium for the tests; {_CURE}")
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), PACKAGE]
    said = ""
    for number in range(tries):
        time.sleep(2 * number)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
            said = (done.stderr or done.stdout).strip()
        except subprocess.TimeoutExpired:
            said = f"it took longer than {seconds:.0f} s"
            continue
        if done.returncode == 0:
            return next(folder.glob("*.tgz"))
    raise Unreachable(f"npm could not fetch {PACKAGE} in {tries} tries: {said or 'it did not say why'}; {_CURE}")


def _unpack(package: Path, folder: Path) -> None:
    from playwright._impl._driver import compute_driver_executable

    node = compute_driver_executable()[0]
    _extract(package, folder)
    packed = folder / "package" / "bin"
    subprocess.run([node, "-e", _UNPACK, *map(str, packed.glob("*.br"))], check=True)
    for archive in packed.glob("*.tar"):
        _extract(archive, packed)
        archive.unlink()
    for leftover in packed.glob("*.br"):
        leftover.unlink()
    (packed / "chromium").chmod(0o755)
    shutil.rmtree(PLACE, ignore_errors=True)
    packed.rename(PLACE)


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


if __name__ == "__main__":
    try:
        print(f"browser: {fetch()}")
    except Unreachable as problem:
        sys.exit(str(problem))
