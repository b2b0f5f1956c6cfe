# SPDX-License-Identifier: MIT
"""A DNS server on UDP and TCP whose answers over UDP are all truncated.

    python -m tests.interop.truncated_dns HOST:PORT TRUST

TXT of any name is the client that asks, and it prints a line for each query:

    PROTOCOL client HOST:PORT source=NAME
"""

from __future__ import annotations

import sys
from typing import Any

import dnslib
import dnslib.server

import uoa
import uoa.dnslib
from uoa.cli import _hostport


class _Short(uoa.dnslib.DNSHandler):
    udplen = 40


class _WhoAmI:
    @uoa.real_client
    def resolve(self, request: Any, handler: Any, client: uoa.Client) -> Any:
        text = f"client {_hostport.text_of((client.host, client.port))} source={client.source}"
        print(f"{handler.protocol} {text}\n", end="", flush=True)  # whole, from threads too
        reply = request.reply()
        if request.q.qtype == dnslib.QTYPE.TXT:
            reply.add_answer(
                dnslib.RR(request.q.qname, dnslib.QTYPE.TXT, rdata=dnslib.TXT(text), ttl=0)
            )
        return reply


def _main(listen: str, trust: str) -> None:
    host, port = _hostport.parse(listen)
    resolver = uoa.Resolver(trust, dialects="ppv2")
    logger = dnslib.server.DNSLogger("-request,-reply,-truncated")
    udp, tcp = (
        uoa.dnslib.DNSServer(
            _WhoAmI(), host, port, is_tcp, logger, _Short, client_resolver=resolver
        )
        for is_tcp in (False, True)
    )
    tcp.start_thread()
    print("ready", flush=True)
    udp.start()


if __name__ == "__main__":
    _main(*sys.argv[1:])
