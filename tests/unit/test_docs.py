# SPDX-License-Identifier: MIT
"""Every fenced block in README and docs is run, or tagged `text`."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

_ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_PAGES = sorted(
    page
    for page in _ROOT.rglob("*.md")
    if not {".venv", ".tox", "build", ".git", "vectors"} & set(page.relative_to(_ROOT).parts)
)


class _Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str


def _blocks() -> list[_Block]:
    blocks = []
    for page in _PAGES:
        content = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(content):
            line = content.count("\n", 0, match.start()) + 1
            name = str(page.relative_to(_ROOT))
            blocks.append(_Block(name, line, match[1], match[2]))
    return blocks


_BLOCKS = _blocks()
_PYTHON = [block for block in _BLOCKS if block.language == "python"]
_SHELL = [block for block in _BLOCKS if block.language == "sh"]


def _name(block: _Block) -> str:
    return f"{block.page}:{block.line}"


def test_every_block_is_run_or_text() -> None:
    """Each fenced block is Python or shell, which tests run, or tagged `text`."""
    others = [_name(b) for b in _BLOCKS if b.language not in ("python", "sh", "text")]

    assert others == []
    assert _PYTHON


def test_links_lead_somewhere() -> None:
    """Each relative link of README and docs names a file that exists."""
    broken = [
        f"{page.relative_to(_ROOT)}: {target}"
        for page in _PAGES
        for target in _LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]

    assert broken == []


@pytest.mark.parametrize("block", [b for b in _PYTHON if "serve(" not in b.text], ids=_name)
def test_python_blocks_run(block: _Block) -> None:
    """A Python block runs to its end, assertions included."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.text],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert result.returncode == 0, result.stderr


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _answer(client: socket.socket, deadline: float) -> bytes:
    """Ask until an answer comes; the kernel refuses until the server is bound."""
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError, TimeoutError):
            client.send(b"hello")
            return client.recv(100)
        select.select([], [], [], 0.05)
    return b""


@pytest.mark.parametrize("block", [b for b in _PYTHON if "serve(" in b.text], ids=_name)
def test_servers_answer(block: _Block) -> None:
    """A block that serves UDP answers a datagram, and prints its client."""
    port = _free_port()
    with (
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", block.text.replace("9999", str(port))],
            stdout=subprocess.PIPE,
            text=True,
        ) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        try:
            client.connect(("127.0.0.1", port))
            client.settimeout(0.1)
            assert _answer(client, time.monotonic() + 30) == b"hello"
            assert server.stdout is not None
            assert "127.0.0.1" in server.stdout.readline()
        finally:
            server.terminate()


@pytest.mark.parametrize("block", _SHELL, ids=_name)
def test_shell_blocks_run(block: _Block) -> None:
    """A shell block succeeds; lines that begin with `#` below a command are its output."""
    scripts = Path(sys.executable).parent
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=_ROOT,
        env={"PATH": f"{scripts}:/usr/bin:/bin:/usr/sbin:/sbin"},
    )
    expected = [line[2:] for line in block.text.splitlines() if line.startswith("# ")]

    assert result.returncode == 0, result.stderr
    for line in expected:
        assert line in result.stdout.splitlines()
