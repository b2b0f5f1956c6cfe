# SPDX-License-Identifier: MIT
"""The server under attack, in a process of its own.

It prints "ready OPTION_PORT PAYLOAD_PORT"; then a line "delivered" on its standard
input is answered with the number of datagrams so far, and any other one with a
JSON line of all that it has seen.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uoa
from uoa.asyncio import create_datagram_endpoint


class _Server(asyncio.DatagramProtocol):
    delivered = 0
    errors = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        # Answer some, so that the sending half works as well; nobody is at port 0.
        _Server.delivered += 1
        if not _Server.delivered % 16 and addr.peer[1]:
            self._transport.sendto(data, addr)

    def error_received(self, error: Exception) -> None:
        _Server.errors += 1


def _resident_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0])


async def _serve(trust: str) -> None:
    loop = asyncio.get_running_loop()
    complaints: list[str] = []
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    options = uoa.Resolver(trust, dialects="ipo,bd", max_flows=1024)
    payload = uoa.Resolver(trust, dialects="ppv2,spp", max_flows=1024)
    ports = []
    for host, resolver in (("::", options), ("0.0.0.0", payload)):
        transport, _ = await create_datagram_endpoint(_Server, (host, 0), resolver=resolver)
        ports.append(transport.get_extra_info("sockname")[1])
    print("ready", *ports, flush=True)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while question := await reader.readline():
        if question == b"delivered\n":
            print(_Server.delivered, flush=True)
            continue
        report = {
            "delivered": _Server.delivered,
            "errors": _Server.errors,
            "complaints": complaints,
            "resident_kib": _resident_kib(),
            "options": options.stats(),
            "payload": payload.stats(),
        }
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
