# SPDX-License-Identifier: MIT
"""`python -m tests.soak.servers NAME TRUST`: the server of one adapter, under attack.

It prints "ready OPTION_PORT PAYLOAD_PORT", a port of 0 where the adapter does not read
such claims. Then "delivered" on its standard input is answered with the number of
datagrams so far, "said" with what the honest were told since (where the protocol has no
answers), "live" with the number of QUIC connections, and any other line with a JSON
line of all that it has seen.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import dnslib
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent, StreamDataReceived
from hypercorn.protocol import quic as hypercorn_quic
from nserver.models import Query
from nserver.records import TXT
from nserver.rules import ZoneRule
from nserver.server import NameServer

import uoa
import uoa.aioquic
import uoa.dnslib
import uoa.middleware
import uoa.nserver
import uoa.socketserver
import uoa.syslog
from tests.frameworks import h3, quic
from tests.frameworks.servers import dns_reply, in_a_loop, serving_forever
from tests.frameworks.world import Running, Start, line_of
from tests.senders import Address

HONEST: Final = b"honest"
"""How the messages of honest clients begin where anything goes."""

_IDLE_SECONDS: Final = 2.0  # then QUIC connections are given up
_SLOW: Final = 4  # one in so many messages is slow to handle
_PAUSE_SECONDS: Final = 0.05

complaints: list[str] = []
said: dict[str, str] = {}
ceilings = 0
"""How often all places for slow work were taken."""


def _answer(data: bytes, client: uoa.Client) -> bytes:
    return line_of(client).encode()


# ---- Slow work -----------------------------------------------------------------------


class _Gate:
    """Holds slow work up until all places are taken, then for a moment more; lets it go then."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiting = self._seen = 0
        self._lock = threading.Lock()
        self._opened = threading.Event()
        self._is_over = False

    def is_slow(self, data: bytes) -> bool:
        """Return whether this is one of those that have to wait."""
        with self._lock:
            self._seen += 1
            return not data.startswith(HONEST) and not self._seen % _SLOW and not self._is_over

    def enter(self) -> tuple[bool, threading.Event]:
        """Take a place; return whether it is the last one, and what is set when it opens."""
        with self._lock:
            self._waiting += 1
            return self._waiting == self._places, self._opened

    def open(self) -> None:
        """Let all go that wait."""
        global ceilings
        with self._lock:
            ceilings += 1
            self._waiting = 0
            self._opened.set()
            self._opened = threading.Event()

    def pass_thread(self) -> None:
        """Wait, in a thread."""
        is_last, opened = self.enter()
        if is_last:
            threading.Event().wait(_PAUSE_SECONDS)
            self.open()
        elif not self._is_over:
            opened.wait()

    def close(self) -> None:
        """Hold nobody up any more."""
        self._is_over = True
        self.open()


# ---- The servers ---------------------------------------------------------------------


class _WhoAmI:
    """A resolver of dnslib."""

    @uoa.real_client
    def resolve(self, request: Any, handler: Any, client: uoa.Client) -> Any:
        return dns_reply(request, line_of(client).encode())


def _dnslib(*, tcp: bool) -> Start:
    @contextmanager
    def start(resolver: uoa.Resolver, host: str) -> Iterator[Running]:
        quiet = dnslib.server.DNSLogger("-request,-reply,-error,-truncated")
        server = uoa.dnslib.DNSServer(
            _WhoAmI(), host, 0, tcp=tcp, logger=quiet, client_resolver=resolver
        )
        with serving_forever(server.server, Running(("", 0))) as running:
            yield running

    return start


def _nserver(application: Any, **options: Any) -> Start:
    @contextmanager
    def start(resolver: uoa.Resolver, host: str) -> Iterator[Running]:
        server = NameServer("whoami")

        @server.rule(ZoneRule, "", ["TXT"])  # type: ignore[untyped-decorator]
        @uoa.real_client
        def whoami(query: Query, client: uoa.Client) -> TXT:
            return TXT(query.name, line_of(client))

        kind = uoa.nserver.UDPv6Transport if ":" in host else uoa.nserver.UDPv4Transport
        transport = kind(host, 0, resolver=resolver)
        serving = application(server, transport, **options)
        thread = threading.Thread(target=serving.run)
        thread.start()
        while transport.socket.getsockname()[1] == 0 and thread.is_alive():
            thread.join(0.01)
        try:
            yield Running(transport.socket.getsockname()[:2])
        finally:
            if not thread.is_alive():
                complaints.append(f"nserver has given up with {serving.exit_code}")
            serving.shutdown_server = True
            # ThreadsApplication looks at this only.
            serving.error_count = serving.MAX_ERRORS
            thread.join()

    return start


@asynccontextmanager
async def _aioquic(resolver: uoa.Resolver, host: str, running: Running) -> AsyncIterator[Address]:
    class WhoAmI(uoa.aioquic.RealClientMixin, QuicConnectionProtocol):
        @uoa.real_client
        def quic_event_received(self, event: QuicEvent, client: uoa.Client) -> None:
            # On a stream of theirs that goes one way nothing can be answered.
            if not isinstance(event, StreamDataReceived) or event.stream_id & 2:
                return
            if event.end_stream:
                self._quic.send_stream_data(
                    event.stream_id, line_of(client).encode(), end_stream=True
                )

    configuration = quic.server_configuration()
    configuration.idle_timeout = _IDLE_SECONDS
    server = await uoa.aioquic.serve(
        host, 0, configuration=configuration, create_protocol=WhoAmI, resolver=resolver
    )
    transport: Any = server._transport
    yield transport.get_extra_info("sockname")
    server.close()
    await asyncio.sleep(0)  # connection_lost() closes the socket


async def _app(scope: h3.Scope, receive: h3.Receive, send: h3.Send) -> None:
    """Say who asks; reads no body."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] != "http":
        return
    plain = scope["extensions"]["uoa"]
    client = uoa.current()
    assert client is not None
    assert plain["source"] == client.source
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": line_of(client).encode()})


@asynccontextmanager
async def _hypercorn(resolver: uoa.Resolver, host: str, running: Running) -> AsyncIterator[Address]:
    config = h3.H3Config(host)
    config.errorlog = logging.getLogger("hypercorn.error")
    # hypercorn has no setting for it, and takes a minute.
    module: Any = hypercorn_quic
    module.QuicConfiguration = functools.partial(QuicConfiguration, idle_timeout=_IDLE_SECONDS)
    app = uoa.middleware.QuicAdapter(_app)
    async with h3.serving(app, config, resolver=resolver) as address:
        yield address


def _say(data: bytes, client: uoa.Client) -> None:
    if data.startswith(HONEST):
        said[data.decode()] = line_of(client)


def _syslog_asyncio() -> Start:
    @asynccontextmanager
    async def serve(resolver: uoa.Resolver, host: str, running: Running) -> AsyncIterator[Address]:
        messages = 0
        gate = asyncio.Event()

        @uoa.syslog.handler
        async def on_message(data: bytes, *, client: uoa.Client) -> None:
            nonlocal messages
            uoa.syslog.parse(data)
            messages += 1
            if not messages % _SLOW and not data.startswith(HONEST):
                await gate.wait()
            _say(data, client)

        async def open_when_full(transport: Any) -> None:
            nonlocal gate
            global ceilings
            while True:
                await asyncio.sleep(_PAUSE_SECONDS)
                if not transport.is_reading():
                    ceilings += 1
                    gate.set()
                    gate = asyncio.Event()

        protocol = uoa.syslog.SyslogProtocol(on_message)
        transport, _ = await uoa.asyncio.create_datagram_endpoint(
            lambda: protocol, (host, 0), resolver=resolver
        )
        opening = asyncio.create_task(open_when_full(transport))
        yield transport.get_extra_info("sockname")
        opening.cancel()
        transport.close()
        await protocol.wait_closed()

    return in_a_loop("asyncio", serve)


@contextmanager
def _syslog_threads(resolver: uoa.Resolver, host: str) -> Iterator[Running]:
    gate = _Gate(uoa.syslog.ThreadingUDPServer.max_threads)

    @uoa.syslog.handler
    def on_message(data: bytes, *, client: uoa.Client) -> None:
        uoa.syslog.parse(data)
        if gate.is_slow(data):
            gate.pass_thread()
        _say(data, client)

    server = uoa.syslog.ThreadingUDPServer((host, 0), on_message, resolver=resolver)
    with serving_forever(server, Running(("", 0))) as running:
        yield running
        gate.close()


@contextmanager
def _socketserver(resolver: uoa.Resolver, host: str) -> Iterator[Running]:
    gate = _Gate(uoa.socketserver.ThreadingUDPServer.max_threads)

    class Handler(uoa.socketserver.DatagramHandler):
        def handle(self) -> None:
            data, sock = self.request
            if gate.is_slow(data):
                gate.pass_thread()
            if self.client.peer[1]:
                sock.sendto(_answer(data, self.client), self.client_address)

    server = uoa.socketserver.ThreadingUDPServer((host, 0), Handler, resolver=resolver)
    with serving_forever(server, Running(("", 0))) as running:
        yield running
        gate.close()


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    @uoa.real_client
    def datagram_received(self, data: bytes, addr: Any, client: uoa.Client) -> None:
        if client.peer[1]:
            self._transport.sendto(_answer(data, client), addr)

    def error_received(self, error: Exception) -> None:
        complaints.append(repr(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@asynccontextmanager
async def _wrap(resolver: uoa.Resolver, host: str, running: Running) -> AsyncIterator[Address]:
    inner = _Protocol()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        uoa.wrap(lambda: inner, resolver=resolver), (host, 0)
    )
    yield transport.get_extra_info("sockname")
    transport.close()
    await inner.lost.wait()


_OPTIONS: Final = "ipo,bd"
_PAYLOAD: Final = "ppv2,spp"

# How each is started, and the dialects of its options and of its headers.
SERVERS: Final[dict[str, tuple[Start, str, str]]] = {
    "dnslib": (_dnslib(tcp=False), _OPTIONS, _PAYLOAD),
    "dnslib-tcp": (_dnslib(tcp=True), "", "ppv2"),
    "nserver": (_nserver(uoa.nserver.DirectApplication), _OPTIONS, _PAYLOAD),
    "nserver-threads": (
        _nserver(uoa.nserver.ThreadsApplication, workers=2), _OPTIONS, _PAYLOAD
    ),
    "aioquic": (in_a_loop("asyncio", _aioquic), _OPTIONS, _PAYLOAD),
    "hypercorn": (in_a_loop("asyncio", _hypercorn), _OPTIONS, _PAYLOAD),
    "syslog": (_syslog_asyncio(), _OPTIONS, _PAYLOAD),
    "syslog-threads": (_syslog_threads, _OPTIONS, _PAYLOAD),
    "socketserver": (_socketserver, _OPTIONS, _PAYLOAD),
    "wrap-asyncio": (in_a_loop("asyncio", _wrap), "", _PAYLOAD),
    "wrap-uvloop": (in_a_loop("uvloop", _wrap), "", _PAYLOAD),
}  # fmt: skip


# ---- The process ---------------------------------------------------------------------


class _Errors(logging.Handler):
    """Takes errors for complaints; warnings about bad input are in order."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            complaints.append(f"{record.name}: {record.getMessage()} {record.exc_info}")


def _status(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(name)[1].split()[0])


def _text(complaint: object) -> str:
    """Return a complaint with the traceback of what was raised."""
    error = complaint.get("exception") if isinstance(complaint, dict) else complaint
    if not isinstance(error, BaseException):
        return repr(complaint)
    return repr(complaint) + "\n" + "".join(traceback.format_exception(error))


def _take_said() -> dict[str, str]:
    """Return what is new."""
    return {token: said.pop(token) for token in list(said)}


def _live() -> int:
    """Return how many QUIC connections there are."""
    gc.collect()
    return sum(isinstance(one, QuicConnection) for one in gc.get_objects())


def _report(running: list[Running], resolvers: dict[str, uoa.Resolver]) -> dict[str, Any]:
    told = [_text(complaint) for one in running for complaint in one.complaints]
    return {
        "complaints": [*complaints, *told][:20],
        "ceilings": ceilings,
        "resident_kib": _status("VmRSS:"),
        "threads": _status("Threads:"),
        "files": len(os.listdir("/proc/self/fd")),
        **{carrier: resolver.stats() for carrier, resolver in resolvers.items()},
    }


def _serve(name: str, trust: str) -> None:
    logging.basicConfig(handlers=[_Errors()], level=logging.WARNING)
    start, *dialects = SERVERS[name]
    hosts = {"options": "::", "payload": "0.0.0.0"}
    # Answers leave from the address that was asked only where we send them.
    if name.startswith("wrap"):
        hosts["payload"] = "10.0.1.9"
    resolvers = {
        carrier: uoa.Resolver(trust, dialects=some, max_flows=1024)
        for carrier, some in zip(hosts, dialects, strict=True)
        if some
    }
    answers: dict[str, Callable[[], Any]] = {
        "delivered": lambda: sum(r.stats()["datagrams"] for r in resolvers.values()),
        "said": _take_said,
        "live": _live,
    }
    with ExitStack() as stack:
        running = {
            carrier: stack.enter_context(start(resolver, hosts[carrier]))
            for carrier, resolver in resolvers.items()
        }
        ports = [running[carrier].address[1] if carrier in running else 0 for carrier in hosts]
        print("ready", *ports, flush=True)
        for question in sys.stdin:
            answer = answers.get(question.strip())
            result = answer() if answer else _report([*running.values()], resolvers)
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2])
