# SPDX-License-Identifier: MIT
"""What the tests of the datagram endpoint share: both loops, a protocol that records.

Sockets are real and on the loopback interface; every test waits for conditions.
Where the way of the claim does not matter it is a PROXY header, which needs no
privileges.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import uoa
import uoa.asyncio
from tests.capability import need

ALICE: Final = ("203.0.113.7", 5000)
BOB: Final = ("2001:db8::8", 5000)
TRUST: Final = "127.0.0.0/8,::1"
HOSTS: Final = ("127.0.0.1", "::1")
PATIENCE: Final = 20  # seconds, for what takes milliseconds
LARGEST: Final = 65507  # bytes of payload that fit into an IPv4 packet

UDP_GRO: Final = 104  # linux/udp.h


class Loop:
    """An event loop, and what was reported to its exception handler."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
        self._factory = factory
        self.complaints: list[dict[str, Any]] = []

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine function until it is done, with patience."""

        async def bounded() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: self.complaints.append(context)
            )
            async with asyncio.timeout(PATIENCE):
                await main()

        with asyncio.Runner(loop_factory=self._factory) as runner:
            runner.run(bounded())


class Recorder(asyncio.DatagramProtocol):
    """Remembers what happens to it, answers what it is told to, and can be waited for."""

    def __init__(self, answer: bool = False) -> None:
        self.events: list[str] = []
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.transport: asyncio.DatagramTransport
        self._answer = answer
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something has happened to this protocol that makes the condition true."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def datagrams(self, count: int) -> list[tuple[bytes, Any]]:
        """Wait for that many datagrams."""
        await self.until(lambda: len(self.received) >= count)
        return self.received

    def note(self, event: str) -> None:
        """Remember, and wake who waits."""
        self.events.append(event)
        self._changed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport
        self.note("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Remember a datagram."""
        self.received.append((data, addr))
        if self._answer:
            self.transport.sendto(data, addr)
        self._changed.set()

    def error_received(self, exc: Exception) -> None:
        """Remember an error."""
        self.errors.append(exc)
        self.note("error")

    def pause_writing(self) -> None:
        """Remember."""
        self.note("pause")

    def resume_writing(self) -> None:
        """Remember."""
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember the end."""
        assert exc is None
        self.note("lost")


class BatchRecorder(Recorder):
    """A protocol that takes whole batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def datagrams_received(self, datagrams: list[tuple[bytes, uoa.Addr]]) -> None:
        """Remember a batch."""
        self.batches.append(len(datagrams))
        for data, addr in datagrams:
            self.datagram_received(data, addr)


@asynccontextmanager
async def endpoint(
    protocol: Recorder, host: str = "127.0.0.1", **arguments: Any
) -> AsyncIterator[tuple[Any, Any]]:
    """Open an endpoint for headers, give its transport and address, close it and wait."""
    if ":" in host:
        need("ipv6")
    if "sock" not in arguments and "local_addr" not in arguments:
        arguments["local_addr"] = (host, 0)
    if "resolver" not in arguments and "trust" not in arguments:
        arguments["resolver"] = uoa.Resolver(TRUST, dialects="ppv2")
    transport, same = await uoa.asyncio.create_datagram_endpoint(lambda: protocol, **arguments)
    assert same is protocol
    try:
        yield transport, transport.get_extra_info("sockname")
    finally:
        transport.close()
        await protocol.until(lambda: "lost" in protocol.events)


async def receive(sock: socket.socket) -> bytes:
    """Wait for a datagram without blocking the loop."""
    sock.setblocking(False)
    return await asyncio.get_running_loop().sock_recv(sock, 65536)


def stats(transport: asyncio.BaseTransport) -> dict[str, int]:
    """Return the counters of the transport's resolver."""
    resolver: uoa.Resolver = transport.get_extra_info("uoa.resolver")
    return resolver.stats()


async def receive_all(sock: socket.socket, count: int) -> list[int]:
    """Wait for that many numbered datagrams."""
    return [int(await receive(sock)) for _ in range(count)]
