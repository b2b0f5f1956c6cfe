# SPDX-License-Identifier: MIT
"""Fixtures of the unit tests."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest

from tests.capability import need
from tests.clock import Clock
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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give a test a clock on which time passes when the test says so."""
    fake = Clock()
    fake.patch(monkeypatch)
    return fake
