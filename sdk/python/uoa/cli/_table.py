# SPDX-License-Identifier: MIT
"""Tables: drawn by rich on a terminal where it is installed, plain lines elsewhere."""

from __future__ import annotations

import sys
from importlib import import_module
from itertools import chain, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_AT_ONCE = 1000  # rows of one rich table: it keeps them all before it draws


def _rich_tables(columns: Sequence[tuple[str, int]], rows: Iterable[Sequence[str]]) -> None:
    console = import_module("rich.console").Console(highlight=False)
    text = import_module("rich.text").Text  # cells are text, never markup
    tables = import_module("rich.table")
    pending = iter(rows)
    while chunk := list(islice(pending, _AT_ONCE)):
        table = tables.Table(*(name for name, _ in columns), box=None, header_style="bold")
        for row in chunk:
            table.add_row(*map(text, row))
        console.print(table)


def _plain_lines(columns: Sequence[tuple[str, int]], rows: Iterable[Sequence[str]]) -> None:
    for row in chain([[name for name, _ in columns]], rows):
        cells = (cell.ljust(width) for cell, (_, width) in zip(row, columns, strict=True))
        print("  ".join(cells).rstrip())


def print_rows(
    columns: Sequence[tuple[str, int]], rows: Iterable[Sequence[str]], *, live: bool = False
) -> None:
    """Print rows under a header; columns are names and least widths.

    Live rows come over time, and each is printed as it comes.
    """
    if sys.stdout.isatty() and not live:
        try:
            return _rich_tables(columns, rows)
        except ImportError:
            pass
    return _plain_lines(columns, rows)
