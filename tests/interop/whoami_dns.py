# SPDX-License-Identifier: MIT
"""A DNS server behind PROXY v2 that answers who asked, in a process of its own.

TXT of any name is the line that it prints for each datagram as well, and TXT of
`lookup.` is what the table of flows says of the peer that asks:

    client HOST:PORT via HOST:PORT source=NAME
    lookup HOST:PORT|None flows N

A of any name is 192.0.2.1.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import dnslib

import uoa
from uoa.cli import _hostport


class _WhoAmI(asyncio.DatagramProtocol):
    def __init__(self, resolver: uoa.Resolver) -> None:
        self._resolver = resolver

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        print("ready", flush=True)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        client = _hostport.text_of((addr.client.host, addr.client.port))
        line = f"client {client} via {_hostport.text_of(addr.peer)} source={addr.client.source}"
        print(line, flush=True)
        try:
            query = dnslib.DNSRecord.parse(data)
        except dnslib.DNSError:
            return  # a PROXY header that was not believed is still there
        answer = query.reply()
        name, kind = query.q.qname, query.q.qtype
        if kind == dnslib.QTYPE.A:
            answer.add_answer(dnslib.RR(name, kind, rdata=dnslib.A("192.0.2.1")))
        elif kind == dnslib.QTYPE.TXT:
            text = self._lookup(addr.peer) if name == "lookup." else line
            answer.add_answer(dnslib.RR(name, kind, rdata=dnslib.TXT(text)))
        self._transport.sendto(answer.pack(), addr)

    def _lookup(self, peer: Any) -> str:
        client = self._resolver.lookup(peer)
        found = client and _hostport.text_of((client.host, client.port))
        return f"lookup {found} flows {self._resolver.stats()['flows']}"


async def _serve(listen: tuple[str, int], trust: str) -> None:
    resolver = uoa.Resolver(trust, dialects="ppv2")
    await uoa.asyncio.serve(lambda: _WhoAmI(resolver), *listen, resolver=resolver)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listen", type=_hostport.parse, required=True)
    parser.add_argument("--trust", required=True)
    args = parser.parse_args()
    asyncio.run(_serve(args.listen, args.trust))
