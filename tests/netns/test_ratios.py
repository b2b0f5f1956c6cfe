# SPDX-License-Identifier: MIT
"""The one figure that a change must not lose, with a wide margin (docs/performance.md)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.capability import need

_ROUNDS = 3


def _rate(name: str, mode: str) -> float:
    result = subprocess.run(
        [sys.executable, "-m", "tests.bench.variants", name, mode],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return float(result.stdout)


@pytest.mark.parametrize("mode", ["drain", "echo"])
def test_endpoint_is_faster_than_the_plain_one(mode: str) -> None:
    """Resolving an option on every datagram, the endpoint is at least 3 times as fast."""
    need("raw")
    best = max(_rate("uoa on asyncio", mode) / _rate("asyncio", mode) for _ in range(_ROUNDS))

    assert best >= 3
