# SPDX-License-Identifier: MIT
"""The one figure that a change must not lose, with a wide margin (docs/performance.md)."""

from __future__ import annotations

import pytest

from tests.bench.variants import run_apart
from tests.capability import need

_ROUNDS = 3


@pytest.mark.parametrize("mode", ["drain", "echo"])
def test_endpoint_is_faster_than_the_plain_one(mode: str) -> None:
    """Resolving an option on every datagram, the endpoint is at least 3 times as fast."""
    need("raw")
    best = max(
        run_apart("uoa on asyncio", mode) / run_apart("asyncio", mode) for _ in range(_ROUNDS)
    )

    assert best >= 3
