"""The browser that opens pages in tests. As a program: fetch a headless Chromium from the npm registry into the environment.

The package holds the browser itself, packed for servers without a screen; npm checks what it downloads.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@sparticuz/chromium@153.0.0"
PLACE = Path(sys.prefix) / "browser"
_UNPACK = """
const fs = require("fs"), zlib = require("zlib");
for (const file of process.argv.slice(1))
  fs.writeFileSync(file.replace(/[.]br$/, ""), zlib.brotliDecompressSync(fs.readFileSync(file)));
"""


def find_browser() -> Path:
    """An own Chromium first (`SIMMIM_CHROMIUM`), then that of `make install`, then the system's."""
    own = os.environ.get("SIMMIM_CHROMIUM")
    found = [own, PLACE / "chromium", *map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))]
    for path in found:
        if path and Path(path).is_file():
            return Path(path)
    raise FileNotFoundError(
        "there is no Chromium to open report.html with; `python tests/report/browser.py` (a part of `make install`) fetches "
        "one by npm, `apt-get install chromium` does too, and SIMMIM_CHROMIUM=PATH names one of your own"
    )


def libraries_of(browser: Path) -> dict[str, str]:
    """The environment in which the packed browser finds the libraries that came with it."""
    return {**os.environ, "LD_LIBRARY_PATH": f"{browser.parent / 'lib'}:{browser.parent}"}


def fetch() -> Path:
    """Bring the browser here, once."""
    try:
        return find_browser()
    except FileNotFoundError:
        print(f"fetching {PACKAGE} into {PLACE}")
    from playwright._impl._driver import compute_driver_executable

    if shutil.which("npm") is None:
        sys.exit(
            "npm is needed to fetch a Chromium for the tests; install Node.js, or Chromium itself by your system's means"
        )
    node = compute_driver_executable()[0]
    PLACE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE.parent) as name:
        folder = Path(name)
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", name, PACKAGE], check=True)
        _extract(next(folder.glob("*.tgz")), folder)
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
    return PLACE / "chromium"


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


if __name__ == "__main__":
    print(f"browser: {fetch()}")
