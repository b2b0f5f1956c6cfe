# SPDX-License-Identifier: MIT
"""uoa_recvmmsg() against bare recvmmsg(): each variant of receive.c in a process of its own."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Final

from tests.wire.build import INCLUDE, OPTIMISED, ROOT, WARNINGS, compile_with, folder

# Name: arguments of receive.c, which are who receives, where it is bound, and what
# the datagrams carry.
VARIANTS: Final = {
    "recvmmsg": ("bare", "127.0.0.1", "none"),
    "uoa_recvmmsg": ("uoa", "127.0.0.1", "none"),
    "uoa_recvmmsg, option": ("uoa", "127.0.0.1", "option"),
    "recvmmsg, wildcard": ("bare", "0.0.0.0", "none"),
    "uoa_recvmmsg, wildcard": ("uoa", "0.0.0.0", "none"),
    "uoa_recvmmsg, wildcard, option": ("uoa", "0.0.0.0", "option"),
}

# Row: (this, against that, budget: at most so many times the time)
ROWS: Final = (
    ("uoa_recvmmsg", "recvmmsg", 1.05),
    ("uoa_recvmmsg, option", "recvmmsg", 1.25),
    ("uoa_recvmmsg, wildcard", "recvmmsg, wildcard", 1.15),
    ("uoa_recvmmsg, wildcard, option", "recvmmsg, wildcard", 1.35),
)


@functools.cache
def program() -> Path:
    """Build receive.c and libuoa's sources, as a release is built."""
    target = folder() / "receive"
    flags = (*WARNINGS, *OPTIMISED, "-fno-strict-aliasing", "-pthread")
    sources: list[str | Path] = ["tests/bench/receive.c", *ROOT.glob("sdk/core/src/*.c")]
    compile_with("cc", "-std=gnu11", *flags, "-I", INCLUDE, "-o", target, *sources)
    return target


def run_apart(name: str) -> float:
    """Return the nanoseconds a datagram of one variant."""
    result = subprocess.run(
        [program(), *VARIANTS[name]], check=True, stdout=subprocess.PIPE, text=True, timeout=120
    )
    return float(result.stdout)
