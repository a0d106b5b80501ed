"""How long a person waits for `simmim --help`, beside an empty Python."""

import statistics
import subprocess
import sys
import time


def measure(*, rounds: int = 10) -> dict[str, float]:
    """Seconds from the command to its end, medians of interleaved rounds."""
    commands = {"help_seconds": ["-m", "simmim", "--help"], "python_seconds": ["-c", "pass"]}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for round_ in range(rounds + 1):
        for name, words in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
            if round_:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}
