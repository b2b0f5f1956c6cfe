# SPDX-License-Identifier: MIT
"""Every fenced block in README and docs is run, or tagged `text`.

Those of docs/frameworks are run by tests/frameworks/test_docs.py, where the frameworks are.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.docs import BLOCKS, ROOT, Block, ask, links, name_of, run, serving

_PYTHON = [b for b in BLOCKS if b.language == "python" and not b.needs_framework]
_SHELL = [b for b in BLOCKS if b.language == "sh"]


def test_every_block_is_run_or_text() -> None:
    """Each fenced block is Python or shell, which tests run, or tagged `text`."""
    others = [name_of(b) for b in BLOCKS if b.language not in ("python", "sh", "text")]

    assert others == []
    assert _PYTHON


def test_links_lead_somewhere() -> None:
    """Each relative link of README and docs names a file that exists."""
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page, target in links()
        if not (page.parent / target).exists()
    ]

    assert broken == []


def test_supported_releases_are_those_of_the_extras() -> None:
    """README names every extra; the table of frameworks has their limits, which tox tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = (ROOT / "docs/frameworks/README.md").read_text(encoding="utf-8")
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    tested = dict(re.findall(r"oldest: (\S+)==(\S+)", tox))
    rows = re.findall(r"`uoa\[(\w+)\]` \| ([0-9.]+) \| ([0-9.]+) \|", table)

    assert [extra for extra in extras if f"`uoa[{extra}]`" not in readme] == []
    assert {extra for extra, _, _ in rows} == set(extras) - {"all"}
    for extra, oldest, newest in rows:
        name, lower, upper = re.findall(r"^[\w-]+|(?<==|<)[0-9.]+", extras[extra][0])
        assert oldest == lower
        assert tested.get(name, lower) in (lower, f"{lower}.0")
        assert _release(oldest) <= _release(newest) < _release(upper)


def _release(text: str) -> list[int]:
    return [int(number) for number in text.split(".")]


@pytest.mark.parametrize("block", [b for b in _PYTHON if not b.is_server], ids=name_of)
def test_python_blocks_run(block: Block) -> None:
    """A Python block runs to its end, assertions included."""
    run(block)


@pytest.mark.parametrize("block", [b for b in _PYTHON if b.is_server], ids=name_of)
def test_servers_answer(block: Block) -> None:
    """A block that serves UDP answers a datagram, and prints its client."""
    with serving(block) as (server, at):
        assert ask(at, b"hello") == b"hello"
        server.wait_for(r"\b127\.0\.0\.1\b")


@pytest.mark.parametrize("block", _SHELL, ids=name_of)
def test_shell_blocks_run(block: Block) -> None:
    """A shell block succeeds; lines that begin with `#` below a command are its output."""
    scripts = Path(sys.executable).parent
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={"PATH": f"{scripts}:/usr/bin:/bin:/usr/sbin:/sbin"},
    )
    expected = [line[2:] for line in block.text.splitlines() if line.startswith("# ")]

    assert result.returncode == 0, result.stderr
    for line in expected:
        assert line in result.stdout.splitlines()
