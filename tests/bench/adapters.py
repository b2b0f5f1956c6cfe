# SPDX-License-Identifier: MIT
"""Each adapter against its own framework without uoa: `python -m tests.bench.adapters NAME [uoa]`.

Prints requests in a second of the server's processor time. Datagram servers find all
requests in their socket's buffer when they start; QUIC servers are asked by a client in
another process, 8 requests at once. Each request for uoa names its client:
in an option, or, where the transport hands no options over, in a PROXY header.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from tests.bench.variants import SENDERS, big_buffers

_CLIENT: Final = ("203.0.113.7", 5555)
_TRUST: Final = "127.0.0.0/8"
_IP_OPTIONS: Final = 4


class Case(NamedTuple):
    """One adapter."""

    run: Callable[[bool, int], float]
    """With or without uoa, for so many requests; returns the processor time in seconds."""
    requests: int
    budget: float
    """At least so many times the rate of the framework alone."""


# ---- Servers of datagrams ------------------------------------------------------------


@contextmanager
def _filled(sock: socket.socket, payload: bytes, requests: int, carrier: str) -> Iterator[None]:
    """Fill the buffer of a bound socket; the senders live as long as the block."""
    import uoa

    big_buffers(sock)
    option = uoa.wire.build("ipo", _CLIENT) if carrier == "option" else b""
    header = uoa.wire.build("ppv2", _CLIENT) if carrier == "header" else b""
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SENDERS)]
    try:
        for sender in senders:
            big_buffers(sender)
            if option:
                sender.setsockopt(socket.IPPROTO_IP, _IP_OPTIONS, option)
            sender.connect(sock.getsockname())
        for number in range(requests):
            senders[number % SENDERS].send(header + payload)
        gc.collect()
        gc.disable()
        yield
    finally:
        for sender in senders:
            sender.close()


class _Countdown:
    """Calls `done` after so many requests."""

    def __init__(self, requests: int, done: Callable[[], object]) -> None:
        self._left = requests
        self._done = done
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self._done()


class _Done(BaseException):
    """Ends a loop that serves forever."""


def _end() -> None:
    raise _Done


def _carrier(is_uoa: bool, carrier: str = "option") -> str:
    return carrier if is_uoa else "none"


def _socket(is_uoa: bool, requests: int) -> float:
    import uoa

    with uoa.Socket(trust=_TRUST) if is_uoa else socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        with _filled(sock, bytes(64), requests, _carrier(is_uoa)):
            start = time.process_time()
            for _ in range(requests):
                data, addr = sock.recvfrom(65535)
                sock.sendto(data, addr)
            return time.process_time() - start


def _serve_forever(server: Any, is_uoa: bool, payload: bytes, requests: int) -> float:
    with server, _filled(server.socket, payload, requests, _carrier(is_uoa)):
        start = time.process_time()
        with suppress(_Done):
            server.serve_forever()
        return time.process_time() - start


def _socketserver(is_uoa: bool, requests: int) -> float:
    import socketserver

    import uoa.socketserver

    count = _Countdown(requests, _end)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            sock.sendto(data, self.client_address)
            count()

    address = ("127.0.0.1", 0)
    server = (
        uoa.socketserver.UDPServer(address, Handler, trust=_TRUST)
        if is_uoa
        else socketserver.UDPServer(address, Handler)
    )
    return _serve_forever(server, is_uoa, bytes(64), requests)


def _dnslib(is_uoa: bool, requests: int) -> float:
    import dnslib
    import dnslib.server

    import uoa.dnslib

    server: Any = None
    count = _Countdown(requests, lambda: server.server.shutdown())

    class Handler(uoa.dnslib.DNSHandler if is_uoa else dnslib.server.DNSHandler):  # type: ignore[misc]
        def handle(self) -> None:
            super().handle()
            count()

    quiet = dnslib.server.DNSLogger("-request,-reply,-error,-truncated")
    resolver = dnslib.server.BaseResolver()
    if is_uoa:
        server = uoa.dnslib.DNSServer(
            resolver, "127.0.0.1", 0, logger=quiet, handler=Handler, trust=_TRUST
        )
    else:
        server = dnslib.server.DNSServer(resolver, "127.0.0.1", 0, logger=quiet, handler=Handler)
    query = dnslib.DNSRecord.question("www.example.com").pack()
    return _serve_forever(server.server, is_uoa, query, requests)


def _nserver(is_uoa: bool, requests: int) -> float:
    import logging

    import dnslib
    from nserver.application import DirectApplication
    from nserver.models import Query
    from nserver.records import A
    from nserver.rules import ZoneRule
    from nserver.server import NameServer
    from nserver.transport import UDPv4Transport

    import uoa.nserver

    logging.disable(logging.CRITICAL)
    count = _Countdown(requests, _end)
    server = NameServer("bench")

    @server.rule(ZoneRule, "", ["A"])  # type: ignore[untyped-decorator]
    def answer(query: Query) -> A:
        return A(query.name, "192.0.2.1")

    base: Any = uoa.nserver.UDPv4Transport if is_uoa else UDPv4Transport

    class Transport(base):  # type: ignore[misc]
        def send_message_response(self, message: Any) -> None:
            super().send_message_response(message)
            count()

    transport: Any = Transport("127.0.0.1", 0, **({"trust": _TRUST} if is_uoa else {}))
    application: Any = uoa.nserver.DirectApplication if is_uoa else DirectApplication
    transport.socket.bind(("127.0.0.1", 0))
    transport.start_server = lambda: None
    query = dnslib.DNSRecord.question("www.example.com").pack()
    with transport.socket, _filled(transport.socket, query, requests, _carrier(is_uoa)):
        start = time.process_time()
        with suppress(_Done):
            application(server, transport).run()
        return time.process_time() - start


# ---- Servers of datagrams on event loops ---------------------------------------------


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def connection_made(self, transport: Any) -> None:
        self._sendto = transport.sendto

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._sendto(data, addr)
        self._count()


def _on_a_loop(
    loop: str, main: Callable[[Callable[[], None], socket.socket], Any], requests: int, carrier: str
) -> float:
    """Run a server on a loop until it has handled all requests."""

    async def run(sock: socket.socket) -> float:
        done = asyncio.Event()
        sock.setblocking(False)
        start = time.process_time()
        await main(_Countdown(requests, done.set), sock)
        await done.wait()
        return time.process_time() - start

    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    with _filled(sock, bytes(64), requests, carrier):
        return _run_on(loop, run(sock))


def _run_on(loop: str, main: Any) -> float:
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        result: float = runner.run(main)
        return result


def _wrap(loop: str) -> Callable[[bool, int], float]:
    def run(is_uoa: bool, requests: int) -> float:
        import uoa

        async def main(count: Callable[[], None], sock: socket.socket) -> None:
            factory: Any = lambda: _Echo(count)  # noqa: E731
            if is_uoa:
                resolver = uoa.Resolver(_TRUST, dialects="ppv2")
                factory = uoa.wrap(factory, resolver=resolver)
            await asyncio.get_running_loop().create_datagram_endpoint(factory, sock=sock)

        return _on_a_loop(loop, main, requests, _carrier(is_uoa, "header"))

    return run


def _syslog(is_uoa: bool, requests: int) -> float:
    import uoa
    import uoa.syslog

    async def main(count: Callable[[], None], sock: socket.socket) -> None:
        class Plain(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                on_message(data, addr)

        def on_message(data: bytes, client: Any) -> None:
            count()

        if is_uoa:
            await uoa.asyncio.create_datagram_endpoint(
                lambda: uoa.syslog.SyslogProtocol(on_message), sock=sock, trust=_TRUST
            )
        else:
            await asyncio.get_running_loop().create_datagram_endpoint(Plain, sock=sock)

    return _on_a_loop("asyncio", main, requests, _carrier(is_uoa))


# ---- QUIC ----------------------------------------------------------------------------


async def _ask_apart(port: int, requests: int, is_uoa: bool, alpn: str) -> float:
    """Let a client in another process ask a server of this one; return our processor time."""
    start = time.process_time()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.quic_client"),
        *(str(port), str(requests), _carrier(is_uoa), alpn),
    )
    assert await process.wait() == 0
    return time.process_time() - start


def _aioquic(loop: str) -> Callable[[bool, int], float]:
    def run(is_uoa: bool, requests: int) -> float:
        from aioquic.asyncio.protocol import QuicConnectionProtocol
        from aioquic.asyncio.server import serve
        from aioquic.quic.events import StreamDataReceived

        import uoa.aioquic
        from tests.frameworks import quic

        class Plain(QuicConnectionProtocol):
            def quic_event_received(self, event: Any) -> None:
                if isinstance(event, StreamDataReceived) and event.end_stream:
                    self._quic.send_stream_data(event.stream_id, event.data, end_stream=True)

        class Real(uoa.aioquic.RealClientMixin, Plain):
            pass

        async def main() -> float:
            configuration = quic.server_configuration()
            server: Any
            if is_uoa:
                server = await uoa.aioquic.serve(
                    "127.0.0.1", 0, configuration=configuration, create_protocol=Real, trust=_TRUST
                )
            else:
                server = await serve(
                    "127.0.0.1", 0, configuration=configuration, create_protocol=Plain
                )
            port = server._transport.get_extra_info("sockname")[1]
            try:
                return await _ask_apart(port, requests, is_uoa, quic.ALPN)
            finally:
                server.close()

        return _run_on(loop, main())

    return run


def _hypercorn(loop: str) -> Callable[[bool, int], float]:
    def run(is_uoa: bool, requests: int) -> float:
        import tempfile
        from pathlib import Path

        import hypercorn.asyncio
        from hypercorn.config import Config

        import uoa.hypercorn
        from tests.frameworks import quic

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": scope["client"][0].encode()})

        async def main() -> float:
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", 0))
                port = sock.getsockname()[1]
            config = Config()
            config.quic_bind, config.bind = [f"127.0.0.1:{port}"], []
            certificate, key = quic.write_certificate(Path(folder))
            config.certfile, config.keyfile = str(certificate), str(key)
            config.loglevel = "CRITICAL"
            ready, done = asyncio.Event(), asyncio.Event()

            async def trigger() -> None:
                ready.set()
                await done.wait()

            server = asyncio.create_task(
                uoa.hypercorn.serve(app, config, trust=_TRUST, shutdown_trigger=trigger)
                if is_uoa
                else hypercorn.asyncio.serve(app, config, shutdown_trigger=trigger)
            )
            await ready.wait()
            try:
                return await _ask_apart(port, requests, is_uoa, "h3")
            finally:
                done.set()
                await server

        with tempfile.TemporaryDirectory() as folder:
            return _run_on(loop, main())

    return run


CASES: Final[dict[str, Case]] = {
    "wrap, asyncio": Case(_wrap("asyncio"), 20_000, 0.5),
    "wrap, uvloop": Case(_wrap("uvloop"), 20_000, 0.5),
    "Socket": Case(_socket, 20_000, 0.5),
    "socketserver": Case(_socketserver, 20_000, 0.5),
    "dnslib": Case(_dnslib, 4_000, 0.5),
    "nserver": Case(_nserver, 2_000, 0.5),
    "syslog": Case(_syslog, 20_000, 1.0),
    "aioquic, asyncio": Case(_aioquic("asyncio"), 3_072, 1.0),
    "aioquic, uvloop": Case(_aioquic("uvloop"), 3_072, 0.9),
    "hypercorn, asyncio": Case(_hypercorn("asyncio"), 1_024, 1.0),
    "hypercorn, uvloop": Case(_hypercorn("uvloop"), 1_024, 0.9),
}


def run_apart(name: str, is_uoa: bool) -> float:
    """Return the requests in a second of processor time of one case, in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.bench.adapters", name, *(["uoa"] if is_uoa else [])],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    return float(result.stdout)


if __name__ == "__main__":
    _case = CASES[sys.argv[1]]
    print(_case.requests / _case.run(sys.argv[2:] == ["uoa"], _case.requests))
