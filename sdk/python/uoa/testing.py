# SPDX-License-Identifier: MIT
"""For the tests of servers that use uoa: clients and addresses, and a small real balancer.

Nothing here needs privileges.

    def test_audit_names_the_client():
        with uoa.testing.acting_as(uoa.testing.client("203.0.113.7")):
            assert "203.0.113.7" in audit("login")

    def test_server_answers():
        with uoa.testing.Balancer(server_address) as balancer:
            assert balancer.ask(b"hello", client=("203.0.113.7", 5555)) == b"hello"
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from uoa import wire
from uoa._client import Addr, Client, View, addr_from
from uoa._context import acting_as

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Balancer", "acting_as", "addr", "client"]

_PEER = ("192.0.2.1", 40001)
_CLIENT = ("203.0.113.7", 5555)
_DIALECTS = {"proxy": "ppv2", "direct": None, "none": None}


def client(
    host: str = _CLIENT[0],
    port: int = _CLIENT[1],
    *,
    peer: tuple[str, int] = _PEER,
    local: tuple[str, int] | None = None,
    source: str = "proxy",
) -> Client:
    """Return a `Client` as a resolver would make it.

    Args:
        host: the client's address.
        port: the client's port.
        peer: the balancer that it came through.
        local: the server's own address, if it is known.
        source: the backend that told, or "direct": then the peer is the client;
            or "none", an unknown client: then host and port are the peer's.
    """
    if source == "direct":
        peer = host, port
    elif source == "none":
        host, port = peer
    return Client(host, port, peer, local, source, _DIALECTS.get(source, "ipo"))


def addr(
    host: str = _CLIENT[0],
    port: int = _CLIENT[1],
    *,
    peer: tuple[str, int] = _PEER,
    local: tuple[str, int] | None = None,
    source: str = "proxy",
    view: View = "client",
) -> Addr:
    """Return an `Addr` as handlers get it; the arguments are those of client()."""
    known = client(host, port, peer=peer, local=local, source=source)
    return addr_from(known, view, is_ipv6_socket=":" in peer[0])


class Balancer:
    """A full-NAT balancer on the loopback interface, with a PROXY v2 header on each datagram.

    Each client gets a socket of its own, which takes answers from the server's
    address only. The server has to trust 127.0.0.1, or ::1, for dialect "ppv2".
    Nothing in it is asynchronous: ask from another thread than the server's, with
    asyncio.to_thread().

    Args:
        server: the server's address; one that is bound to all is asked on loopback.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, server: tuple[Any, ...], timeout: float = 10.0) -> None:
        self._server = server
        self._timeout = timeout
        self._flows: dict[tuple[str, int], socket.socket] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _flow(self, client: tuple[str, int]) -> socket.socket:
        if client not in self._flows:
            family = socket.AF_INET6 if ":" in self._server[0] else socket.AF_INET
            sock = self._flows[client] = socket.socket(family, socket.SOCK_DGRAM)
            sock.settimeout(self._timeout)
            sock.connect(self._server)
        return self._flows[client]

    def send(self, data: bytes, client: tuple[str, int] = _CLIENT) -> None:
        """Send the server a datagram of this client."""
        self._flow(client).send(wire.build("ppv2", client) + data)

    def receive(self, client: tuple[str, int] = _CLIENT) -> bytes:
        """Return the next datagram that the server has sent to this client.

        Raises:
            TimeoutError: none came in time.
            ConnectionRefusedError: nobody serves at that address.
        """
        return self._flow(client).recv(65535)

    def ask(self, data: bytes, client: tuple[str, int] = _CLIENT) -> bytes:
        """Send a datagram of this client, and return the answer."""
        self.send(data, client)
        return self.receive(client)

    def peer(self, client: tuple[str, int] = _CLIENT) -> tuple[str, int]:
        """Return the address of ours that the server sees for this client."""
        host, port, *_ = self._flow(client).getsockname()
        return host, port

    def close(self) -> None:
        """Close all sockets; the next datagram of a client comes from another port."""
        while self._flows:
            self._flows.popitem()[1].close()
