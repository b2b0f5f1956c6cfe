# SPDX-License-Identifier: MIT
"""A QUIC client for the benchmark: `python -m tests.bench.quic_client PORT REQUESTS CARRIER ALPN`.

Sends 8 requests, a datagram each, then waits for their answers, and so on; over a
connection for each 512 of them. With CARRIER "option" each datagram names a client in an IP
option. So few at once that no queue of a framework is too short for them: what is lost is sent
again in fewer datagrams, and the two sides would not be doing the same work.
"""

from __future__ import annotations

import socket
import ssl
import sys
from typing import Any, Final

import uoa
from tests.frameworks.quic_talk import Http3Talk, QuicTalk

_A_CONNECTION: Final = 512
_AT_ONCE: Final = 8
_IP_OPTIONS: Final = 4


class _Server:
    """What QuicTalk knows of the world, here only a server behind a connected socket."""

    class running:  # noqa: N801
        """A stranger: what it has said is not known here."""

        lines: Final[list[str]] = []

    def send(self, sock: socket.socket, payload: bytes, claim: object) -> None:
        """Send."""
        sock.send(payload)

    def receive(self, sock: socket.socket, until: float) -> bytes | None:
        """Receive, or give up."""
        from tests.frameworks.world import wait_readable

        return sock.recv(65535) if wait_readable(sock, until) else None


def main(port: str, requests: str, carrier: str, alpn: str) -> None:
    """Ask."""
    left = int(requests)
    kind = Http3Talk if alpn == "h3" else QuicTalk
    while left:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            if carrier == "option":
                option = uoa.wire.build("ipo", ("203.0.113.7", 5555))
                sock.setsockopt(socket.IPPROTO_IP, _IP_OPTIONS, option)
            sock.connect(("127.0.0.1", int(port)))
            world: Any = _Server()
            talk = kind(world, ssl.CERT_NONE)  # the server's certificate is of this run
            for _ in range(min(left, _A_CONNECTION) // _AT_ONCE):
                talk.ask_at_once(sock, None, _AT_ONCE)
                left -= _AT_ONCE


main(*sys.argv[1:])
