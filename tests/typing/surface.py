# SPDX-License-Identifier: MIT
"""What type checkers make of the public names; mypy reads this, and nothing runs it."""

from __future__ import annotations

import asyncio
import socketserver
from collections.abc import Callable
from typing import Any, assert_type

import uoa
import uoa.socketserver
import uoa.testing

# ---- current, wrap -------------------------------------------------------------------

assert_type(uoa.current(), uoa.Client | None)


class Plain(asyncio.DatagramProtocol):
    """A protocol."""


assert_type(uoa.wrap(Plain, trust="10.0.0.0/8"), Callable[[], asyncio.DatagramProtocol])
assert_type(uoa.wrap(lambda: Plain(), view="peer"), Callable[[], asyncio.DatagramProtocol])
assert_type(uoa.wrap(Plain(), resolver=uoa.Resolver([])), asyncio.DatagramProtocol)

uoa.wrap(5)  # type: ignore[call-overload]
uoa.wrap(Plain, view="both")  # type: ignore[call-overload]

# ---- real_client ---------------------------------------------------------------------


@uoa.real_client
def ambient(client: uoa.Client) -> int:
    """Take nothing else."""
    return client.port


@uoa.real_client
def first(client: uoa.Client, name: str, *, loud: bool = False) -> str:
    """Take the client first: names and defaults of the others stay known."""
    return name


@uoa.real_client
def last(data: bytes, addr: uoa.Addr, client: uoa.Client) -> bytes:
    """Take the client last."""
    return data


@uoa.real_client(missing="raise")
async def home(request: str, client: uoa.Client) -> str:
    """Be a coroutine function."""
    return client.host


@uoa.real_client
def keyword(request: str, *, client: uoa.Client) -> float:
    """Take it by name only: nothing is known then."""
    return 0.0


@uoa.real_client
def loose(addr: Any, client: uoa.Client) -> float:
    """Take Any: nothing is known then, and nothing refused."""
    return 0.0


assert_type(ambient(), int)
assert_type(first("x", loud=True), str)
assert_type(last(b"", uoa.testing.addr()), bytes)
assert_type(keyword("x"), Any)
assert_type(loose("x"), Any)


async def main() -> None:
    """Call what is awaited."""
    assert_type(await home("x"), str)


first(5)  # type: ignore[arg-type]
last("x", uoa.testing.addr())  # type: ignore[arg-type]
home()  # type: ignore[call-arg, unused-coroutine]
uoa.real_client(missing="drop")  # type: ignore[call-overload]


@uoa.real_client
class Bare(asyncio.DatagramProtocol):
    """A class stays what it is."""

    word = "word"


@uoa.real_client(trust="10.0.0.0/8")
class Echo(asyncio.DatagramProtocol):
    """So does one whose handler has the parameter, which fits the protocol's."""

    def connection_made(self, transport: Any) -> None:
        """Keep it."""
        self.transport: asyncio.DatagramTransport = transport

    @uoa.real_client
    def datagram_received(self, data: bytes, addr: tuple[str, int], client: uoa.Client) -> None:
        """Answer."""
        self.transport.sendto(data, addr)


assert_type(Bare, type[Bare])
assert_type(Bare().word, str)
assert_type(Echo().datagram_received(b"", ("192.0.2.1", 1)), None)

# ---- Socket --------------------------------------------------------------------------

sock = uoa.Socket(trust=[], view="peer")
assert_type(sock.recvfrom(100), tuple[bytes, uoa.Addr])
assert_type(sock.recvfrom_into(bytearray(5)), tuple[int, uoa.Addr])
assert_type(sock.recv(100), bytes)
assert_type(sock.sendto(b"", ("192.0.2.1", 1)), int)
assert_type(sock.sendto(memoryview(b""), 0, sock.recvfrom(1)[1]), int)
assert_type(sock.resolver, uoa.Resolver)
assert_type(uoa.Socket.from_socket(sock, trust=[]), uoa.Socket)

# ---- socketserver --------------------------------------------------------------------


class Handler(uoa.socketserver.DatagramHandler):
    """A handler whose attributes are known."""

    def handle(self) -> None:
        """Answer."""
        data, server = self.request
        assert_type(data, bytes)
        assert_type(server, uoa.Socket)
        assert_type(self.client_address, uoa.Addr)
        assert_type(self.client, uoa.Client)


server: socketserver.UDPServer = uoa.socketserver.ThreadingUDPServer(("", 0), Handler, trust=[])
uoa.socketserver.ForkingUDPServer(("", 0), socketserver.DatagramRequestHandler, trust=[])

# ---- testing -------------------------------------------------------------------------

assert_type(uoa.testing.client("203.0.113.7", source="direct"), uoa.Client)
assert_type(uoa.testing.addr(view="peer"), uoa.Addr)
with uoa.testing.acting_as(uoa.testing.addr()):
    assert_type(uoa.testing.Balancer(("127.0.0.1", 9999)).ask(b""), bytes)
