"""Small tables on a terminal."""

import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

_IN_A_FILE = 120


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Print a table, as wide as it needs to be; columns after the first are aligned right where they hold numbers."""
    table = Table(title=title or None, title_justify="left", header_style="bold", title_style="bold")
    dense = len(columns) > 6 and not any(" " in cell for row in rows for cell in row[1:])  # numbers, each one word
    for number, column in enumerate(columns):
        numeric = number > 0 and all(
            row[number].replace(".", "").replace("%", "").strip(" -±").isdigit() for row in rows
        )
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=number == 0 or dense)
    for row in rows:
        table.add_row(*row)
    console = Console(soft_wrap=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:  # a file or a pipe
        console.width = _IN_A_FILE
    console.print(table)
