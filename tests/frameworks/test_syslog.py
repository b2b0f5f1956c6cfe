# SPDX-License-Identifier: MIT
"""`uoa.syslog`: handlers, and the collectors that call them."""

from __future__ import annotations

import asyncio
import functools
import importlib
import queue
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import pytest

import uoa
import uoa.asyncio
import uoa.syslog
import uoa.testing
from tests.capability import need
from tests.senders import send_claim, udp_socket
from tests.unit.endpoints import ALICE, BOB, HOSTS, LARGEST, PATIENCE, TRUST, Loop
from uoa import wire

_SERVERS: Final = (uoa.syslog.UDPServer, uoa.syslog.ThreadingUDPServer)
_MOST: Final = 256


def _headers(**arguments: Any) -> uoa.Resolver:
    return uoa.Resolver(TRUST, dialects="ppv2", **arguments)


class _Seen:
    """What a handler has seen, for which an event loop can wait."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, str]] = []
        self._changed = asyncio.Event()

    def add(self, data: bytes, client: uoa.Client) -> None:
        """Remember a message, of the client that is current too."""
        assert uoa.current() == client
        self.messages.append((data, client.host))
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something was seen that makes the condition true."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def _collecting(
    on_message: Callable[..., Any], host: str = "127.0.0.1", **arguments: Any
) -> AsyncIterator[tuple[Any, Any, Any]]:
    """Open an endpoint for a handler; give transport, protocol and address; close and wait."""
    if ":" in host:
        need("ipv6")
    arguments.setdefault("resolver", _headers())
    protocol = uoa.syslog.SyslogProtocol(on_message)
    transport, _ = await uoa.asyncio.create_datagram_endpoint(
        lambda: protocol, (host, 0), **arguments
    )
    try:
        yield transport, protocol, transport.get_extra_info("sockname")
    finally:
        transport.close()
        await protocol.wait_closed()


@contextmanager
def _serving(
    kind: type[uoa.syslog.UDPServer],
    on_message: Callable[..., Any],
    host: str = "127.0.0.1",
    **arguments: Any,
) -> Iterator[uoa.syslog.UDPServer]:
    """Run a server on a thread."""
    if ":" in host:
        need("ipv6")
    arguments.setdefault("resolver", _headers())
    with kind((host, 0), on_message, **arguments) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class TestHandler:
    """The decorator."""

    def test_the_client_is_filled_in(self) -> None:
        """By name or by position, first or last, annotated or not: handlers get their client."""
        seen = []

        @uoa.syslog.handler
        def keyword(data: bytes, *, client: uoa.Client) -> None:
            seen.append((data, client.host))

        @uoa.syslog.handler
        def last(data: bytes, client: uoa.Client) -> None:
            seen.append((data, client.host))

        @uoa.syslog.handler
        def first(client: Any, data: bytes) -> None:
            seen.append((data, client.host))

        @uoa.syslog.handler
        def annotated(data: bytes, who: uoa.Client) -> None:
            seen.append((data, who.host))

        @uoa.syslog.handler
        def none(data: bytes) -> None:
            client = uoa.current()
            assert client is not None
            seen.append((data, client.host))

        with uoa.testing.acting_as(uoa.testing.client("203.0.113.9")):
            for function in (keyword, last, first, annotated, none):
                function(b"text")
        assert seen == [(b"text", "203.0.113.9")] * 5

    def test_coroutine_functions_stay_so(self) -> None:
        """A coroutine function is one afterwards, and its client is there when it runs."""

        @uoa.syslog.handler
        async def on_message(data: bytes, *, client: uoa.Client) -> str:
            return client.host

        with uoa.testing.acting_as(uoa.testing.client("203.0.113.9")):
            assert asyncio.iscoroutinefunction(on_message)
            assert asyncio.run(on_message(b"text")) == "203.0.113.9"

    def test_methods_are_handlers(self) -> None:
        """Methods of objects and classes, and static ones."""

        class Store:
            name = "store"

            @uoa.syslog.handler
            def plain(self, data: bytes, *, client: uoa.Client) -> tuple[str, bytes, str]:
                return self.name, data, client.host

            @uoa.syslog.handler
            @classmethod
            def of_class(cls, data: bytes, client: uoa.Client) -> tuple[str, bytes, str]:
                return cls.name, data, client.host

            @uoa.syslog.handler
            @staticmethod
            def static(data: bytes, client: uoa.Client) -> tuple[str, bytes, str]:
                return "store", data, client.host

        store: Any = Store()
        with uoa.testing.acting_as(uoa.testing.client("203.0.113.9")):
            for method in (store.plain, store.of_class, store.static, Store.of_class):
                assert method(b"text") == ("store", b"text", "203.0.113.9")

    def test_what_can_never_be_called_is_refused(self) -> None:
        """Too few and too many parameters, and no function at all: the error says the way out."""

        def nothing() -> None: ...
        def only_client(*, client: uoa.Client) -> None: ...
        def too_many(data: bytes, addr: object, client: uoa.Client) -> None: ...
        def by_name(*, data: bytes, client: uoa.Client) -> None: ...

        for wrong in (nothing, only_client, too_many, by_name):
            with pytest.raises(uoa.ConfigurationError, match=rf"{wrong.__name__}\(\).*on_message"):
                uoa.syslog.handler(wrong)
        with pytest.raises(uoa.ConfigurationError, match="not callable"):
            uoa.syslog.handler(5)  # type: ignore[call-overload]

        with pytest.raises(uoa.ConfigurationError, match=r"method\(\)"):

            class _Wrong:
                @uoa.syslog.handler
                def method(self, client: uoa.Client) -> None: ...

    def test_defaults_and_functions_of_c_will_do(self) -> None:
        """Parameters with defaults, partial objects, bound methods of built-in types."""

        def more(data: bytes, path: str = "log", *, client: uoa.Client) -> None: ...

        right: Any
        for right in (more, functools.partial(more, path="x"), [].append, queue.Queue().put):
            assert callable(uoa.syslog.handler(right))

    def test_what_is_a_handler_stays_one(self) -> None:
        """Decorating twice changes nothing."""

        @uoa.syslog.handler
        def on_message(data: bytes, *, client: uoa.Client) -> None: ...

        assert uoa.syslog.handler(on_message) is on_message


class TestAsyncio:
    """The protocol, and serve()."""

    @pytest.mark.parametrize("host", HOSTS)
    @pytest.mark.parametrize("kind", ["plain", "coroutine"])
    def test_handlers_get_messages_and_clients(self, loop: Loop, host: str, kind: str) -> None:
        """Two clients behind one balancer, interleaved 500 times: nobody is mixed up."""

        async def main() -> None:
            seen = _Seen()

            @uoa.syslog.handler
            async def coroutine(data: bytes, *, client: uoa.Client) -> None:
                await asyncio.sleep(0)
                seen.add(data, client)

            def plain(data: bytes, client: uoa.Client) -> None:
                seen.add(data, client)

            function: Callable[..., Any] = plain if kind == "plain" else coroutine
            async with _collecting(function, host) as (_, _, address):
                with udp_socket(host) as balancer:
                    expected = []
                    for number in range(500):
                        for client in (ALICE, BOB):
                            data = b"<13>%d of %s" % (number, client[0].encode())
                            send_claim(balancer, address, client, data, "ppv2")
                            expected.append((data, client[0]))
                        if number % 20 == 0:
                            await seen.until(lambda: len(seen.messages) == len(expected))
                    await seen.until(lambda: len(seen.messages) == len(expected))
            assert sorted(seen.messages) == sorted(expected)
            assert uoa.current() is None

        loop.run(main)

    def test_nobody_is_current_afterwards(self, loop: Loop) -> None:
        """A client is current in its own handler, and in what the handler starts; never later."""

        async def main() -> None:
            currents: list[object] = []
            done = asyncio.Event()

            def on_message(data: bytes) -> None:
                here = asyncio.get_running_loop()
                currents.append(uoa.current())
                here.call_later(0, lambda: currents.append(uoa.current()))
                if data == b"last":
                    here.call_later(0, done.set)

            async with _collecting(on_message) as (_, _, address):
                with udp_socket("127.0.0.1") as balancer:
                    send_claim(balancer, address, ALICE, b"first", "ppv2")
                    send_claim(balancer, address, BOB, b"last", "ppv2")
                    await done.wait()
            hosts = [client.host for client in currents if isinstance(client, uoa.Client)]
            assert sorted(hosts) == sorted([ALICE[0], BOB[0]] * 2)
            assert uoa.current() is None

        loop.run(main)

    def test_slow_handlers_leave_messages_in_the_kernel(self, loop: Loop) -> None:
        """At most 256 handlers run; what the buffer cannot take is dropped, and counted."""

        async def main() -> None:
            gate, seen = asyncio.Event(), _Seen()
            running = most = 0

            @uoa.syslog.handler
            async def on_message(data: bytes, *, client: uoa.Client) -> None:
                nonlocal running, most
                running += 1
                most = max(most, running)
                seen.add(data, client)
                await gate.wait()
                running -= 1

            resolver = _headers()
            async with _collecting(on_message, resolver=resolver) as (transport, _, address):
                transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16
                )
                with udp_socket("127.0.0.1") as balancer:
                    sent = 0
                    while transport.is_reading():
                        send_claim(balancer, address, ALICE, b"flood", "ppv2")
                        sent += 1
                        assert sent < 5000
                        await asyncio.sleep(0)
                    await seen.until(lambda: running > _MOST - 64)
                    held = running
                    for _ in range(2000):
                        send_claim(balancer, address, BOB, b"more", "ppv2")
                    sent += 2000
                    for _ in range(10):
                        await asyncio.sleep(0)
                    assert running == held == len(seen.messages)
                    assert not transport.is_reading()

                    gate.set()
                    # The next datagram tells of the drops before it.
                    while not any(data == b"end" for data, _ in seen.messages):
                        send_claim(balancer, address, ALICE, b"end", "ppv2")
                        await asyncio.sleep(0)
                    assert transport.is_reading()
                    handled = sum(data != b"end" for data, _ in seen.messages)
                    assert handled + resolver.stats()["receive_drops"] >= sent
                    assert held < handled < sent
            assert _MOST - 64 < most <= _MOST

        loop.run(main)

    def test_floods_lose_nothing_that_the_buffer_holds(self, loop: Loop) -> None:
        """After a pause, everything that waited is handled."""

        async def main() -> None:
            seen = _Seen()

            @uoa.syslog.handler
            async def on_message(data: bytes, *, client: uoa.Client) -> None:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                seen.add(data, client)

            resolver = _headers()
            async with _collecting(on_message, resolver=resolver) as (transport, _, address):
                transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22
                )
                with udp_socket("127.0.0.1") as balancer:
                    transport.pause_reading()
                    for _ in range(400):
                        send_claim(balancer, address, ALICE, b"x", "ppv2")
                    transport.resume_reading()
                    lost = resolver.stats
                    await seen.until(lambda: len(seen.messages) + lost()["receive_drops"] >= 400)
            assert len(seen.messages) > _MOST

        loop.run(main)

    def test_what_handlers_raise_is_told(self, loop: Loop) -> None:
        """An exception goes to the loop's exception handler, and serving goes on."""

        async def main() -> None:
            seen = _Seen()

            @uoa.syslog.handler
            async def coroutine(data: bytes, *, client: uoa.Client) -> None:
                seen.add(data, client)
                raise ValueError(data)

            def plain(data: bytes, client: uoa.Client) -> None:
                seen.add(data, client)
                raise ValueError(data)

            for function in (coroutine, plain):
                async with _collecting(function) as (_, _, address):
                    with udp_socket("127.0.0.1") as balancer:
                        seen.messages.clear()
                        for data in (b"one", b"two"):
                            send_claim(balancer, address, ALICE, data, "ppv2")
                        await seen.until(lambda: len(seen.messages) == 2)

        loop.run(main)
        assert [str(told["exception"]) for told in loop.complaints] == ["b'one'", "b'two'"] * 2
        assert all("handler" in told["message"] for told in loop.complaints)
        loop.complaints.clear()

    @pytest.mark.parametrize("kind", ["plain", "coroutine"])
    def test_odd_datagrams(self, loop: Loop, kind: str) -> None:
        """Empty and header-only ones are no messages; cut headers and 64 KiB arrive whole."""

        async def main() -> None:
            seen = _Seen()

            async def coroutine(data: bytes, client: uoa.Client) -> None:
                seen.add(data, client)

            header = wire.build("ppv2", ALICE)
            large = header + b"<13>" + bytes(LARGEST - len(header) - 4)
            resolver = _headers()
            function: Callable[..., Any] = seen.add if kind == "plain" else coroutine
            async with _collecting(function, resolver=resolver) as (_, _, address):
                with udp_socket("127.0.0.1") as balancer:
                    for data in (b"", header, header[:-1], large, b"end"):
                        balancer.sendto(data, address)
                    await seen.until(lambda: len(seen.messages) == 3)
            assert [data for data, _ in seen.messages] == [
                header[:-1],
                large[len(header) :],
                b"end",
            ]
            assert seen.messages[1][1] == ALICE[0]
            assert resolver.stats()["empty"] == 2

        loop.run(main)

    def test_strangers_are_themselves(self, loop: Loop) -> None:
        """An untrusted sender's header stays in its message; it is counted."""

        async def main() -> None:
            seen = _Seen()
            resolver = uoa.Resolver([], dialects="ppv2")
            async with _collecting(seen.add, resolver=resolver) as (_, _, address):
                with udp_socket("127.0.0.1") as stranger:
                    send_claim(stranger, address, ALICE, b"<13>x", "ppv2")
                    await seen.until(lambda: seen.messages)
            assert seen.messages == [(wire.build("ppv2", ALICE) + b"<13>x", "127.0.0.1")]
            assert resolver.stats()["untrusted"] == 1
            assert resolver.stats()["flows"] == 0

        loop.run(main)

    @pytest.mark.parametrize("missing", ["peer", "drop", "raise"])
    def test_missing_does_what_it_says(self, loop: Loop, missing: Any) -> None:
        """Messages of unknown clients are handled, dropped, or dropped and told."""

        async def main() -> None:
            seen = _Seen()
            resolver = _headers(missing=missing)
            async with _collecting(seen.add, resolver=resolver) as (_, _, address):
                with udp_socket("127.0.0.1") as balancer:
                    balancer.sendto(b"unknown", address)
                    send_claim(balancer, address, ALICE, b"known", "ppv2")
                    await seen.until(lambda: (b"known", ALICE[0]) in seen.messages)
            assert len(seen.messages) == (2 if missing == "peer" else 1)

        loop.run(main)
        told = [type(context["exception"]) for context in loop.complaints]
        assert told == ([uoa.UnknownClientError] if missing == "raise" else [])
        loop.complaints.clear()

    def test_serve_ends_when_it_is_cancelled(self, loop: Loop) -> None:
        """It cancels the handlers that run, waits for them, and gives the port back."""

        async def main() -> None:
            seen, ended = _Seen(), []

            @uoa.syslog.handler
            async def on_message(data: bytes, *, client: uoa.Client) -> None:
                seen.add(data, client)
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    await asyncio.sleep(0)
                    ended.append(data)

            with udp_socket("127.0.0.1") as free:
                port = free.getsockname()[1]
            server = asyncio.create_task(
                uoa.syslog.serve(on_message, "127.0.0.1", port, resolver=_headers())
            )
            with udp_socket("127.0.0.1") as balancer:
                while not seen.messages:
                    send_claim(balancer, ("127.0.0.1", port), ALICE, b"x", "ppv2")
                    await asyncio.wait([server], timeout=0.01)
                server.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await server
            assert len(ended) == len(seen.messages)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
                again.bind(("127.0.0.1", port))

        loop.run(main)

    def test_serve_refuses_what_cannot_work(self, loop: Loop) -> None:
        """A handler without a message, no trust, a resolver and trust, an address in use."""

        async def main() -> None:
            def wrong() -> None: ...

            with pytest.raises(uoa.ConfigurationError, match=r"wrong\(\)"):
                await uoa.syslog.serve(wrong, "127.0.0.1", 0, trust=[])
            with pytest.raises(uoa.TrustError):
                await uoa.syslog.serve(print, "127.0.0.1", 0, trust="nonsense")
            with pytest.raises(uoa.ConfigurationError, match="one of the two"):
                await uoa.syslog.serve(print, "127.0.0.1", 0, trust=[], resolver=_headers())
            with udp_socket("127.0.0.1") as other, pytest.raises(OSError, match="in use"):
                await uoa.syslog.serve(print, *other.getsockname(), trust=[])

        loop.run(main)

    def test_a_wrapped_transport_will_do(self) -> None:
        """On asyncio's own transport messages have clients too."""

        async def main() -> None:
            seen = _Seen()
            protocol = uoa.syslog.SyslogProtocol(seen.add)
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                uoa.wrap(lambda: protocol, resolver=_headers()), ("127.0.0.1", 0)
            )
            with udp_socket("127.0.0.1") as balancer:
                address = transport.get_extra_info("sockname")
                send_claim(balancer, address, ALICE, b"x", "ppv2")
                await seen.until(lambda: seen.messages)
            transport.close()
            await protocol.wait_closed()

        loop = Loop(None)
        loop.run(main)
        assert loop.complaints == []

    @pytest.mark.parametrize(
        ("name", "wrapped", "why"),
        [
            ("asyncio", False, "knows no clients"),
            ("uvloop", False, "cannot be paused"),
            ("uvloop", True, "cannot be paused"),
        ],
    )
    def test_other_transports_are_refused(self, name: str, wrapped: bool, why: str) -> None:
        """Where nothing resolves, or work could pile up, the error names what to use."""
        need(name) if name == "uvloop" else None
        loop = Loop(importlib.import_module(name).new_event_loop)

        async def main() -> None:
            protocol: Any = uoa.syslog.SyslogProtocol(print)
            made = uoa.wrap(protocol, resolver=_headers()) if wrapped else protocol
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: made, ("127.0.0.1", 0)
            )
            assert transport.is_closing()
            await protocol.wait_closed()
            await asyncio.sleep(0)

        try:
            loop.run(main)
        except uoa.ConfigurationError as refused:
            told = str(refused)
        else:
            told = str(loop.complaints[0]["exception"])
        assert why in told
        assert "uoa.syslog.serve()" in told


class TestSocketserver:
    """The servers with and without threads."""

    @pytest.mark.parametrize("host", HOSTS)
    @pytest.mark.parametrize("kind", _SERVERS)
    def test_handlers_get_messages_and_clients(
        self, kind: type[uoa.syslog.UDPServer], host: str
    ) -> None:
        """Two clients, interleaved: each message comes with its own, which is current too."""
        seen: queue.Queue[tuple[bytes, str]] = queue.Queue()

        def on_message(data: bytes, client: uoa.Client) -> None:
            assert uoa.current() == client
            seen.put((data, client.host))

        with _serving(kind, on_message, host) as server, udp_socket(host) as balancer:
            for number in range(200):
                expected = set()
                for client in (ALICE, BOB):
                    data = b"%d %s" % (number, client[0].encode())
                    send_claim(balancer, server.server_address, client, data, "ppv2")
                    expected.add((data, client[0]))
                assert {seen.get(timeout=PATIENCE) for _ in range(2)} == expected

    @pytest.mark.parametrize("kind", _SERVERS)
    def test_odd_datagrams(self, kind: type[uoa.syslog.UDPServer]) -> None:
        """Empty and header-only ones are no messages; 64 KiB arrive whole."""
        seen: queue.Queue[bytes] = queue.Queue()
        header = wire.build("ppv2", ALICE)
        large = header + bytes(LARGEST - len(header))
        resolver = _headers()
        with (
            _serving(kind, seen.put, resolver=resolver) as server,
            udp_socket("127.0.0.1") as balancer,
        ):
            for data in (b"", header, large):
                balancer.sendto(data, server.server_address)
            assert seen.get(timeout=PATIENCE) == large[len(header) :]
        assert resolver.stats()["empty"] == 2
        assert seen.empty()

    @pytest.mark.parametrize("kind", _SERVERS)
    def test_what_handlers_raise_is_told(self, kind: type[uoa.syslog.UDPServer]) -> None:
        """An exception goes to handle_error(), and serving goes on."""
        told: queue.Queue[str] = queue.Queue()

        class Server(kind):  # type: ignore[valid-type, misc]
            def handle_error(self, request: Any, client_address: Any) -> None:
                told.put(f"{sys.exception()} {client_address.client.host}")

        def on_message(data: bytes) -> None:
            raise ValueError(data)

        with _serving(Server, on_message) as server, udp_socket("127.0.0.1") as balancer:
            for data in (b"one", b"two"):
                send_claim(balancer, server.server_address, ALICE, data, "ppv2")
                assert told.get(timeout=PATIENCE) == f"{data!r} {ALICE[0]}"

    @pytest.mark.parametrize("kind", _SERVERS)
    def test_coroutine_functions_are_refused(self, kind: type[uoa.syslog.UDPServer]) -> None:
        """No loop runs there: the error names serve(). Nothing stays open."""

        async def on_message(data: bytes) -> None: ...

        class Later:
            async def __call__(self, data: bytes) -> None: ...

        for function in (on_message, functools.partial(on_message), Later()):
            with pytest.raises(uoa.ConfigurationError, match=r"uoa\.syslog\.serve\(\)"):
                kind(("127.0.0.1", 0), function, trust=[])
        with pytest.raises(uoa.ConfigurationError, match="on_message"):
            kind(("127.0.0.1", 0), lambda: None, trust=[])
