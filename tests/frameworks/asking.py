# SPDX-License-Identifier: MIT
"""Questions to servers in other processes and threads, from a test without an event loop."""

from __future__ import annotations

import asyncio

from tests.docs import ask
from tests.frameworks import h3, quic
from tests.frameworks.servers import dns_answer, dns_question
from tests.senders import Address
from tests.unit.endpoints import PATIENCE


def ask_dns(at: Address) -> str:
    """Return the text of the answer to a DNS query for TXT; the server may be starting."""
    return dns_answer(ask(at, dns_question()))


def ask_quic(at: Address, alpn: str = "echo") -> bytes:
    """Return the answer to `hello` on a stream of a new QUIC connection."""

    async def main() -> bytes:
        async with asyncio.timeout(PATIENCE), quic.client(at, alpn=alpn) as connection:
            return await quic.ask(connection)

    return asyncio.run(main())


def get_page(at: Address, path: str = "/") -> h3.Response:
    """Return what is there, over HTTP/3 on a new connection."""

    async def main() -> h3.Response:
        async with asyncio.timeout(PATIENCE), h3.client(at) as connection:
            return await connection.request(path)

    return asyncio.run(main())
