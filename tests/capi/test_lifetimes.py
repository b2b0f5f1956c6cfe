# SPDX-License-Identifier: MIT
"""Whatever a C program makes, it can free, also when memory runs out half-way."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.capability import need
from tests.wire.build import INCLUDE, ROOT, SANITIZED, WARNINGS, compile_with

WRAPPED = [f"-Wl,--wrap={name}" for name in ("malloc", "calloc", "realloc")]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_nothing_is_left_behind(compiler: str, tmp_path: Path) -> None:
    """Making, using and freeing everything leaks nothing, whichever allocation fails."""
    need(compiler)
    program = tmp_path / "lifetimes"
    flags = (*WARNINGS, *SANITIZED, *WRAPPED, "-pthread")
    sources: list[str | Path] = ["tests/capi/lifetimes.c", *ROOT.glob("sdk/core/src/*.c")]
    compile_with(compiler, "-std=gnu11", *flags, "-I", INCLUDE, "-o", program, *sources)
    result = subprocess.run([program], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 10  # trust, resolver, tables, receiver, sender
