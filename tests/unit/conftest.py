# SPDX-License-Identifier: MIT
"""Fixtures of the unit tests."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest

from tests.capability import need
from tests.unit.endpoints import Loop


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """Give a test each event loop in turn; what nobody caught fails it."""
    factory = None
    if request.param == "uvloop":
        need("uvloop")
        factory = importlib.import_module("uvloop").new_event_loop
    made = Loop(factory)
    yield made
    assert made.complaints == []
