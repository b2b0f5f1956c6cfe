# SPDX-License-Identifier: MIT
"""A server of each adapter, which says who asked, by the line of tests/frameworks/world.py."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path
from typing import Any, Final

import dnslib
import uvloop
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.events import QuicEvent, StreamDataReceived
from hypercorn.config import Config
from nserver.middleware import RawMiddleware
from nserver.server import NameServer, RawNameServer
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import uoa
import uoa.aioquic
import uoa.asyncio
import uoa.dnslib
import uoa.hypercorn
import uoa.nserver
import uoa.socketserver
import uoa.syslog
from tests.frameworks import quic
from tests.frameworks.quic_talk import Http3Talk, QuicTalk
from tests.frameworks.world import NO_CMSG, PATIENCE, Adapter, Running, Start
from tests.senders import Address, udp_socket
from uoa.cli import _hostport

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
            here.set_exception_handler(
                lambda _, context: running.complaints.append(context.get("exception") or context)
            )
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


def _nserver(kind: type[Any]) -> Start:
    @contextmanager
    def start(resolver: uoa.Resolver, host: str) -> Iterator[Running]:
        running = Running(("", 0))
        raw = RawNameServer(NameServer("whoami"))

        class WhoAmI(RawMiddleware):
            @uoa.real_client
            def process_request(self, request: Any, call_next: Any, client: uoa.Client) -> Any:
                return dns_reply(request, running.say(client))

        raw.append_middleware(WhoAmI())
        transport_of = uoa.nserver.UDPv6Transport if ":" in host else uoa.nserver.UDPv4Transport
        transport = transport_of(host, 0, resolver=resolver, receive_timeout=0.05)
        application = kind(raw, transport)
        # Bound here, so that the port is known, and what cannot work is raised here.
        try:
            transport.start_server()
        except BaseException:
            transport.socket.close()
            raise
        transport.start_server = lambda: None  # type: ignore[method-assign]
        running.address = transport.socket.getsockname()[:2]
        status: list[int] = []
        thread = threading.Thread(target=lambda: status.append(application.run()))
        thread.start()
        try:
            yield running
        finally:
            application.shutdown_server = True
            application.error_count = max(application.MAX_ERRORS, 1)
            thread.join()
            if transport.socket.fileno() >= 0:
                transport.stop_server()

    return start


# ---- Syslog --------------------------------------------------------------------------


def syslog_message() -> bytes:
    """Return a message."""
    return b"<13>1 - host app - - - hello"


@asynccontextmanager
async def _syslog(resolver: uoa.Resolver, host: str, running: Running) -> AsyncIterator[Address]:
    @uoa.syslog.handler
    async def on_message(data: bytes, *, client: uoa.Client) -> None:
        running.say(client)

    protocol = uoa.syslog.SyslogProtocol(on_message)
    transport, _ = await uoa.asyncio.create_datagram_endpoint(
        lambda: protocol, (host, 0), resolver=resolver
    )
    yield transport.get_extra_info("sockname")
    transport.close()
    await protocol.wait_closed()


@contextmanager
def _syslog_threads(resolver: uoa.Resolver, host: str) -> Iterator[Running]:
    running = Running(("", 0))

    def on_message(data: bytes, client: uoa.Client) -> None:
        running.say(client)

    server = uoa.syslog.ThreadingUDPServer((host, 0), on_message, resolver=resolver)
    with serving_forever(server, running):
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


@asynccontextmanager
async def _hypercorn(resolver: uoa.Resolver, host: str, running: Running) -> AsyncIterator[Address]:
    """HTTP/3, and the adapter for ASGI applications in front of Starlette."""

    @uoa.real_client
    async def whoami(request: Request, client: uoa.Client) -> PlainTextResponse:
        assert request.client is not None
        assert (request.client.host, request.client.port) == (client.host, client.port)
        return PlainTextResponse(running.say(client))

    app = Starlette(
        routes=[Route("/", whoami)], middleware=[Middleware(uoa.middleware.QuicAdapter)]
    )
    ready, done = asyncio.Event(), asyncio.Event()
    with tempfile.TemporaryDirectory() as folder:
        with udp_socket(host) as free:
            address = free.getsockname()[:2]  # In a namespace of its own nobody else takes it.
        config = Config()
        config.quic_bind, config.bind = [_hostport.text_of(address)], []
        config.loglevel = "CRITICAL"
        config.graceful_timeout = 0.1  # for clients that do not say goodbye
        certificate, key = quic.write_certificate(Path(folder))
        config.certfile, config.keyfile = str(certificate), str(key)

        async def trigger() -> None:
            ready.set()
            await done.wait()

        served = uoa.hypercorn.serve(app, config, resolver=resolver, shutdown_trigger=trigger)
        server = asyncio.create_task(served)
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait([server, waiting], return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            waiting.cancel()
            await server
        yield address
        done.set()
        try:
            await server
        except* RuntimeError as errors:
            # hypercorn's timers of connections that are open when it ends.
            _, others = errors.split(lambda error: "is shutting down" in str(error))
            assert others is None


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
    **{
        f"hypercorn-{loop}": Adapter(
            in_a_loop(loop, _hypercorn),
            talk=Http3Talk,
            question=lambda: b"no QUIC",
            has_empty=False,
            rebuilds=False,
            is_frozen=True,
            turns=300,
        )
        for loop in LOOPS
    },
    **{
        f"syslog-{loop}": Adapter(
            in_a_loop(loop, _syslog),
            question=syslog_message,
            answer=None,
            has_empty=False,
            rebuilds=False,
        )
        for loop in LOOPS
    },
    "syslog-threads": Adapter(
        _syslog_threads, question=syslog_message, answer=None, has_empty=False, rebuilds=False
    ),
    **{
        f"nserver-{name}": Adapter(
            _nserver(kind),
            question=dns_question,
            answer=dns_answer,
            has_empty=False,
            rebuilds=False,
        )
        for name, kind in (
            ("direct", uoa.nserver.DirectApplication),
            ("threads", uoa.nserver.ThreadsApplication),
        )
    },
    "dnslib": Adapter(_dnslib, question=dns_question, answer=dns_answer, has_empty=False),
}
