# SPDX-License-Identifier: MIT
"""The demo's server: an ordinary echo protocol, in a process of its own.

It prints "ready HOST PORT" and then, for each datagram, one JSON line with what
the socket saw and who uoa says the client is.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uoa
from uoa.asyncio import create_datagram_endpoint


class _Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        print("ready", host, port, flush=True)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        assert isinstance(addr, uoa.Addr)
        client = addr.client
        line = {
            "payload": data.decode(),
            "peer": client.peer,
            "client": [client.host, client.port],
            "source": client.source,
            "resolved": client.resolved,
        }
        print(json.dumps(line), flush=True)
        self._transport.sendto(data, addr)


async def _serve(host: str, trust: str, backend: str) -> None:
    resolver = uoa.Resolver(trust, backend)
    await create_datagram_endpoint(_Echo, (host, 0), resolver=resolver)
    # Until the demo closes our standard input, or dies.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
