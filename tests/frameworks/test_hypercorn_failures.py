# SPDX-License-Identifier: MIT
"""Connections that fail below uoa.hypercorn.serve(): each ends alone, and all others go on."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.frameworks.h3 import Receive, Scope, Send, client, serving, tell
from tests.frameworks.quic import NAME
from tests.unit.endpoints import Loop


def test_a_request_that_cannot_be_read(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """It ends its own connection, is logged once, and others are answered as before."""

    async def main() -> None:
        async with serving(tell) as to, client(to) as other:
            assert (await other.request()).status == 200
            for _ in range(2):
                async with client(to) as bad:
                    stream = bad._quic.get_next_available_stream_id()
                    headers = [
                        (b":method", b"\xff"),
                        (b":scheme", b"https"),
                        (b":authority", NAME.encode()),
                        (b":path", b"/"),
                    ]
                    bad._http.send_headers(stream, headers, end_stream=True)
                    bad.transmit()
                    await bad.wait_closed()
            assert (await other.request()).status == 200
            async with client(to) as late:
                assert (await late.request()).status == 200

    with caplog.at_level(logging.WARNING, "uoa"):
        loop.run(main)
    assert loop.complaints == []
    assert [record.msg[:30] for record in caplog.records] == ["hypercorn: a connection failed"]


def test_an_application_that_fails_too_late(loop: Loop) -> None:
    """When nobody takes the answer any more, not even that it failed, others go on."""
    asked, may_fail, has_failed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/fail":
            return await tell(scope, receive, send)
        asked.set()
        await may_fail.wait()
        has_failed.set()
        raise ZeroDivisionError

    async def main() -> None:
        async with serving(app) as to, client(to) as other, client(to) as bad:
            stream = bad._quic.get_next_available_stream_id()
            asking = asyncio.create_task(bad.request("/fail"))
            await asked.wait()
            bad._quic.stop_stream(stream, 0)
            await bad.ping()  # Then it has been heard.
            may_fail.set()
            await has_failed.wait()
            assert (await other.request()).status == 200
            async with client(to) as late:
                assert (await late.request()).status == 200
            asking.cancel()

    loop.run(main)
    assert loop.complaints == []
