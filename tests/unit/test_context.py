# SPDX-License-Identifier: MIT
"""`uoa.current()`: whose datagram is being handled here."""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor

import pytest

import uoa
import uoa.testing
from uoa import _context

ALICE = uoa.testing.client("203.0.113.7")
BOB = uoa.testing.addr("2001:db8::8")


class TestCurrent:
    """What is set, and until when."""

    def test_nobody_is_outside_of_handlers(self) -> None:
        """Where no datagram is handled the answer is None."""
        assert uoa.current() is None

    def test_an_address_stands_for_its_client(self) -> None:
        """Endpoints set addresses, as they have them; the answer is a Client."""

        def handle() -> None:
            _context.enter(BOB)

            assert uoa.current() is BOB.client
            _context.leave()
            assert uoa.current() is None

        contextvars.copy_context().run(handle)

    def test_acting_ends_where_it_began(self) -> None:
        """After acting as somebody the one before is current again, errors or not."""
        with uoa.testing.acting_as(ALICE):
            with uoa.testing.acting_as(BOB):
                assert uoa.current() is BOB.client
            with pytest.raises(KeyError), uoa.testing.acting_as(BOB):
                raise KeyError
            assert uoa.current() is ALICE
            with uoa.testing.acting_as(None):
                assert uoa.current() is None
        assert uoa.current() is None

    def test_threads_start_with_nobody(self) -> None:
        """A thread has no current client of its own accord."""
        with uoa.testing.acting_as(ALICE), ThreadPoolExecutor(1) as pool:
            assert pool.submit(uoa.current).result() is None
