# SPDX-License-Identifier: MIT
"""A server of each adapter, which says who asked, by the line of tests/frameworks/world.py."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, Final

import dnslib
import uvloop
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.quic.events import QuicEvent, StreamDataReceived

import uoa
import uoa.aioquic
import uoa.asyncio
import uoa.dnslib
import uoa.socketserver
from tests.frameworks import quic
from tests.frameworks.quic_talk import QuicTalk
from tests.frameworks.world import NO_CMSG, PATIENCE, Adapter, Running, Start
from tests.senders import Address

# ---- Event loops ---------------------------------------------------------------------

LOOPS: Final = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def in_a_loop(
    loop: str, serve: Callable[[uoa.Resolver, str, Running], AbstractAsyncContextManager[Any]]
) -> Start:
    """Return a start of what serves on an event loop: in a thread, on a loop of that kind."""

    @contextmanager
    def start(resolver: uoa.Resolver, host: str) -> Iterator[Running]:
        running = Running(("", 0))
        ready = threading.Event()
        failed: list[BaseException] = []
        handle: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

        async def main() -> None:
            here, done = asyncio.get_running_loop(), asyncio.Event()
            handle.append((here, done))
            here.set_exception_handler(lambda _, context: running.complaints.append(context))
            async with serve(resolver, host, running) as address:
                running.address = address[:2]
                ready.set()
                await done.wait()

        def run() -> None:
            try:
                with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                    runner.run(main())
            except BaseException as error:
                failed.append(error)
            finally:
                ready.set()

        thread = threading.Thread(target=run)
        thread.start()
        assert ready.wait(PATIENCE)
        try:
            if failed:
                raise failed[0]
            yield running
        finally:
            if not failed:
                there, done = handle[0]
                there.call_soon_threadsafe(done.set)
            thread.join()
        if failed:
            raise failed[0]

    return start


class _WhoAmI(asyncio.DatagramProtocol):
    def __init__(self, running: Running) -> None:
        self._running = running
        self.lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    @uoa.real_client
    def datagram_received(self, data: bytes, addr: Any, client: uoa.Client) -> None:
        self._transport.sendto(self._running.say(client), self._running.rebuild(addr))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@asynccontextmanager
async def _endpoint(resolver: uoa.Resolver, host: str, running: Running) -> AsyncIterator[Address]:
    transport, protocol = await uoa.asyncio.create_datagram_endpoint(
        lambda: _WhoAmI(running), (host, 0), resolver=resolver
    )
    yield transport.get_extra_info("sockname")
    transport.close()
    assert isinstance(protocol, _WhoAmI)
    await protocol.lost.wait()


@asynccontextmanager
async def _wrapped(resolver: uoa.Resolver, host: str, running: Running) -> AsyncIterator[Address]:
    loop = asyncio.get_running_loop()
    inner = _WhoAmI(running)
    transport, _ = await loop.create_datagram_endpoint(
        uoa.wrap(lambda: inner, resolver=resolver), (host, 0)
    )
    yield transport.get_extra_info("sockname")
    transport.close()
    await inner.lost.wait()


# ---- Threads -------------------------------------------------------------------------


@contextmanager
def serving_forever(server: Any, running: Running) -> Iterator[Running]:
    """Run a server of socketserver in a thread, and write its errors down."""

    def handle_error(request: object, client_address: object) -> None:
        import sys

        running.complaints.append(sys.exception())

    server.handle_error = handle_error
    running.address = server.server_address[:2]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _socketserver(kind: type[uoa.socketserver.UDPServer]) -> Start:
    @contextmanager
    def start(resolver: uoa.Resolver, host: str) -> Iterator[Running]:
        running = Running(("", 0))

        class Handler(uoa.socketserver.DatagramHandler):
            def handle(self) -> None:
                _, sock = self.request
                sock.sendto(running.say(self.client), running.rebuild(self.client_address))

        with serving_forever(kind((host, 0), Handler, resolver=resolver), running):
            yield running

    return start


@contextmanager
def _socket(resolver: uoa.Resolver, host: str) -> Iterator[Running]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with uoa.Socket(family, resolver=resolver) as sock:
        sock.bind((host, 0))
        sock.settimeout(0.05)
        running = Running(sock.getsockname()[:2])
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    _, addr = sock.recvfrom(65535)
                except TimeoutError:
                    continue
                except uoa.UnknownClientError:
                    continue
                # A socket hands datagrams out, and does not know what handles them.
                with uoa.testing.acting_as(addr):
                    sock.sendto(running.say(addr.client), running.rebuild(addr))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield running
        finally:
            done.set()
            thread.join()


# ---- DNS -----------------------------------------------------------------------------


def dns_question() -> bytes:
    """Return a query."""
    question: bytes = dnslib.DNSRecord.question("who.am.i.", "TXT").pack()
    return question


def dns_answer(data: bytes) -> str:
    """Return the line of an answer, which is its TXT record."""
    record = dnslib.DNSRecord.parse(data)
    return b"".join(record.rr[0].rdata.data).decode()


def dns_reply(request: Any, line: bytes) -> Any:
    """Return the answer to a query."""
    reply = request.reply()
    text = [line[at : at + 255] for at in range(0, len(line), 255)]
    reply.add_answer(dnslib.RR(request.q.qname, dnslib.QTYPE.TXT, rdata=dnslib.TXT(text)))
    return reply


@contextmanager
def _dnslib(resolver: uoa.Resolver, host: str) -> Iterator[Running]:
    running = Running(("", 0))

    class WhoAmI:
        @uoa.real_client
        def resolve(self, request: Any, handler: Any, client: uoa.Client) -> Any:
            line = running.say(client)
            handler.client_address = running.rebuild(handler.client_address)
            return dns_reply(request, line)

    quiet = dnslib.server.DNSLogger("-request,-reply,-error,-truncated")
    server = uoa.dnslib.DNSServer(WhoAmI(), host, 0, logger=quiet, client_resolver=resolver)
    with serving_forever(server.server, running):
        yield running


# ---- QUIC ----------------------------------------------------------------------------


@asynccontextmanager
async def _aioquic(resolver: uoa.Resolver, host: str, running: Running) -> AsyncIterator[Address]:
    class WhoAmI(uoa.aioquic.RealClientMixin, QuicConnectionProtocol):
        @uoa.real_client
        def quic_event_received(self, event: QuicEvent, client: uoa.Client) -> None:
            if isinstance(event, StreamDataReceived) and event.end_stream:
                self._quic.send_stream_data(event.stream_id, running.say(client), end_stream=True)

    server = await uoa.aioquic.serve(
        host,
        0,
        configuration=quic.server_configuration(),
        create_protocol=WhoAmI,
        resolver=resolver,
    )
    transport: Any = server._transport
    yield transport.get_extra_info("sockname")
    server.close()
    await asyncio.sleep(0)  # connection_lost() closes the socket


# ---- All of them ---------------------------------------------------------------------

ADAPTERS: Final[dict[str, Adapter]] = {
    **{f"endpoint-{loop}": Adapter(in_a_loop(loop, _endpoint)) for loop in LOOPS},
    **{
        f"wrap-{loop}": Adapter(in_a_loop(loop, _wrapped), NO_CMSG, answers_from_asked=False)
        for loop in LOOPS
    },
    "socket": Adapter(_socket),
    "socketserver": Adapter(_socketserver(uoa.socketserver.UDPServer)),
    "socketserver-threads": Adapter(_socketserver(uoa.socketserver.ThreadingUDPServer)),
    **{
        f"aioquic-{loop}": Adapter(
            in_a_loop(loop, _aioquic),
            talk=QuicTalk,
            question=lambda: b"no QUIC",
            has_empty=False,
            rebuilds=False,
        )
        for loop in LOOPS
    },
    "dnslib": Adapter(_dnslib, question=dns_question, answer=dns_answer, has_empty=False),
}
