# SPDX-License-Identifier: MIT
"""The fenced blocks of README and docs: found, run, and asked where they are servers."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.interop.programs import PATIENCE, PYTHON, Program, running
from tests.senders import Address, udp_socket

ROOT: Final = Path(__file__).parents[1]

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_NO_PAGES: Final = {".venv", ".tox", "build", ".git", "vectors"}

PAGES: Final = sorted(
    page for page in ROOT.rglob("*.md") if not _NO_PAGES & set(page.relative_to(ROOT).parts)
)


class Block(NamedTuple):
    """What is between two fences."""

    page: str
    line: int
    language: str
    text: str

    @property
    def needs_framework(self) -> bool:
        """Whether it is on a page about a framework, which has to be installed."""
        return self.page.startswith("docs/frameworks/")

    @property
    def is_server(self) -> bool:
        """Whether it serves until it is ended."""
        return "serve(" in self.text


def name_of(block: Block) -> str:
    """Return where a block is, for messages and for pytest."""
    return f"{block.page}:{block.line}"


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        content = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(content):
            line = content.count("\n", 0, match.start()) + 1
            yield Block(str(page.relative_to(ROOT)), line, match[1], match[2])


BLOCKS: Final = list(_blocks())


def links() -> list[tuple[Path, str]]:
    """Return each relative link, with its page."""
    return [
        (page, target)
        for page in PAGES
        for target in _LINK.findall(page.read_text(encoding="utf-8"))
    ]


def run(block: Block) -> None:
    """Run a block of Python to its end, assertions included."""
    command = [*PYTHON, "-c", block.text]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert result.returncode == 0, result.stderr


@contextmanager
def serving(block: Block, trust: str | None = None) -> Iterator[tuple[Program, Address]]:
    """Run a block that serves until the `with` ends; give the program, and where it will be.

    Args:
        block: the server; its port, 9999, becomes a free one.
        trust: whom it trusts instead of the network of the docs.
    """
    with udp_socket("127.0.0.1") as free:
        at: Address = free.getsockname()
    text = block.text.replace("9999", str(at[1]))
    if trust is not None:
        assert "10.0.0.0/24" in text
        text = text.replace("10.0.0.0/24", trust)
    with running(*PYTHON, "-c", text) as server:
        yield server, at


def ask(to: Address, question: bytes, *, until: Callable[[], object] = lambda: None) -> bytes:
    """Send until an answer comes, and return it; a server that starts misses the first ones.

    Args:
        to: the server.
        question: what to send.
        until: ends it too, without an answer: for protocols that have none.
    """
    deadline = time.monotonic() + PATIENCE
    with udp_socket("127.0.0.1") as sock:
        sock.settimeout(0.1)
        while not until():
            assert time.monotonic() < deadline, f"{to} does not answer"
            sock.sendto(question, to)
            with contextlib.suppress(TimeoutError):
                return sock.recv(4096)
    return b""
