"""`make quick-start`: a fresh environment, and every command of the quick start typed into it, as it stands there.

    python tests/documentation/quick_start.py [FOLDER]

Takes some minutes and the installation of torch. The default tests type the same commands into the environment that is there.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from documentation.pages import DOCS, blocks  # noqa: E402
from documentation.photos import make_photos  # noqa: E402


def script() -> str:
    """The page as a shell script that stops at the first command that fails, and says how long each took."""
    lines: list[str] = []
    for block in blocks(DOCS / "start.md"):
        if block.language == "python":
            lines += _typed("python (the block of the page)", f"python - <<'PY'\n{block.text}PY", block.place)
        elif block.language == "bash":
            for command in block.text.replace("\\\n", " ").splitlines():
                if command.strip() and not command.startswith("#"):
                    lines += _typed(command, command, block.place)
    return "\n".join([*lines, ""])


def _typed(shown: str, command: str, place: str) -> list[str]:
    return [
        f"printf '\\n$ %s\\n' {shlex.quote(shown)}; began=$SECONDS",
        command,
        "status=$?",
        f'[ $status = 0 ] || {{ echo "FAILED with status $status at {place}"; exit 1; }}',
        'echo "[status 0, $((SECONDS - began)) s]"',
    ]


def main() -> int:
    """Type the page into a folder; 0 where every command ended well."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="quick-start-")).resolve()
    if any(folder.glob("*")):
        print(f"{folder} is not empty")
        return 2
    make_photos(folder)
    (folder / "simmim").symlink_to(ROOT, target_is_directory=True)
    text = script()
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    print(f"typing {text.count('status=$?')} commands in {folder}")
    status = subprocess.run(["bash", "-c", text], cwd=folder, env=kept, check=False).returncode
    print(
        "\nevery command of the quick start ended well" if status == 0 else "\nthe quick start does not work as written"
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
