# SPDX-License-Identifier: MIT
"""uoa.hypercorn: clients of HTTP/3 behind a balancer, over real QUIC.

    H3Client ──► Relay ──(PROXY v2 or option)──► hypercorn ──► QuicAdapter ──► tell()

The relay stands for the full-NAT balancer; it is trusted, and so are its neighbours.
"""

from __future__ import annotations

import asyncio
import socket
import types
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import uoa
import uoa.middleware
from tests.capability import need
from tests.frameworks.h3 import (
    H3Config,
    Receive,
    Scope,
    Send,
    client,
    first_datagram,
    serving,
    tell,
)
from tests.frameworks.relay import Relay
from tests.senders import udp_socket
from tests.unit.endpoints import ALICE, BOB, TRUST, Loop
from uoa import wire

_QUESTIONS = 1000


def _resolver(**arguments: Any) -> uoa.Resolver:
    return uoa.Resolver(TRUST, dialects="ppv2", **arguments)


def _text(address: tuple[str, int]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else "{}:{}".format(*address)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
@pytest.mark.parametrize("dialect", ["ppv2", "ipo"])
@pytest.mark.parametrize("claim", [ALICE, BOB])
def test_the_client_is_known(loop: Loop, host: str, dialect: str, claim: Any) -> None:
    """An HTTP/3 request shows the client that the balancer names; it gets the answer."""
    need("ipv6")
    if dialect != "ppv2":
        need("raw")

    async def main() -> None:
        app = uoa.middleware.QuicAdapter(tell)
        resolver = uoa.Resolver(TRUST, dialects=dialect)
        async with serving(app, H3Config(host), resolver=resolver) as at:
            with Relay(at, dialect) as relay:
                relay.claim = claim
                async with client(relay.address) as connection:
                    told = (await connection.request()).json
                [peer] = relay.peers()
        source = "proxy" if dialect == "ppv2" else "cmsg"
        assert told == {
            "version": "3",
            "client": [*claim],
            "extension": {
                "peer": [*peer], "client": [*claim], "source": source, "resolved": True,
            },
            "current": [*claim],
            "received": 0,
        }  # fmt: skip

    loop.run(main)


def test_clients_are_not_mixed_up(loop: Loop) -> None:
    """Two clients behind one balancer, asking in turns, are each shown their own address."""

    async def main() -> None:
        app = uoa.middleware.QuicAdapter(tell)
        async with serving(app) as at:
            with Relay(at) as relay:
                async with client(relay.address) as one, client(relay.address) as two:
                    told = []
                    for _ in range(_QUESTIONS // 4):
                        answers = await asyncio.gather(
                            one.request(), two.request(), two.request(), one.request()
                        )
                        told.append([tuple(answer.json["client"]) for answer in answers])
                        assert all(
                            answer.json["client"] == answer.json["current"] for answer in answers
                        )
        [(first, second, *_)] = set(map(tuple, told))
        assert first != second
        assert told == [[first, second, second, first]] * (_QUESTIONS // 4)

    loop.run(main)


def test_replies_follow_the_balancer(loop: Loop) -> None:
    """When the balancer comes from another port, the connection goes on; so does its client."""

    async def main() -> None:
        async with serving(uoa.middleware.QuicAdapter(tell)) as at:
            with Relay(at) as relay:
                relay.claim = ALICE
                async with client(relay.address) as connection:
                    for _ in range(5):
                        answer = await connection.request()
                        assert answer.json["client"] == [*ALICE]
                        relay.move()

    loop.run(main)


def test_the_client_is_frozen(loop: Loop) -> None:
    """A client that moves after the handshake is answered; the scope shows where it began."""

    async def main() -> None:
        async with serving(uoa.middleware.QuicAdapter(tell)) as at:
            with Relay(at) as relay:
                relay.claim = ALICE
                async with client(relay.address) as connection:
                    assert (await connection.request()).json["client"] == [*ALICE]
                    relay.claim = BOB
                    for _ in range(3):
                        assert (await connection.request()).json["client"] == [*ALICE]

    loop.run(main)


def test_junk_changes_nothing(loop: Loop) -> None:
    """A datagram with a valid connection ID that names another client does no harm."""

    async def main() -> None:
        async with serving(uoa.middleware.QuicAdapter(tell)) as at:
            with Relay(at) as relay:
                relay.claim = ALICE
                async with client(relay.address) as connection:
                    await connection.request()
                    junk = relay.sent[-1][:9] + bytes(40)
                    for is_stray in (True, False):
                        relay.inject(junk, BOB, is_stray=is_stray)
                        answer = await connection.request()
                        assert answer.json["client"] == [*ALICE]

    loop.run(main)


def test_a_direct_client_is_itself(loop: Loop) -> None:
    """Who is no balancer is the client, and its claim to be another is not believed."""

    async def main() -> None:
        resolver = uoa.Resolver([], dialects="ppv2")
        app = uoa.middleware.QuicAdapter(tell)
        async with serving(app, resolver=resolver) as at:
            with udp_socket("127.0.0.1") as forger:
                forger.sendto(wire.build("ppv2", ALICE) + bytes(1200), at)
            async with client(at) as connection:
                told = (await connection.request()).json
        host, port = told["client"]
        assert told["extension"] == {
            "peer": [host, port], "client": [host, port], "source": "direct", "resolved": False,
        }  # fmt: skip
        assert host == "127.0.0.1"
        stats = resolver.stats()
        assert (stats["untrusted"], stats["flows"]) == (1, 0)

    loop.run(main)


def test_an_unknown_client_is_said_to_be_so(loop: Loop) -> None:
    """A trusted peer that makes no claim is served, and shown as the peer that it is."""

    async def main() -> None:
        app = uoa.middleware.QuicAdapter(tell)
        async with serving(app) as at, client(at) as connection:
            told = (await connection.request()).json
        assert told["extension"]["source"] == "none"
        assert told["extension"]["resolved"] is False
        assert told["extension"]["client"] == told["extension"]["peer"] == told["client"]

    loop.run(main)


@pytest.mark.parametrize("missing", ["drop", "raise"])
def test_unknown_clients_are_refused(
    loop: Loop, missing: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With missing="drop" and "raise" they get no answer, others do; "raise" says so, once."""

    async def main() -> None:
        resolver = _resolver(missing=missing)
        app = uoa.middleware.QuicAdapter(tell)
        async with serving(app, resolver=resolver) as at:
            with Relay(at) as relay, udp_socket("127.0.0.1") as unknown:
                for _ in range(3):
                    unknown.sendto(first_datagram(at), at)
                relay.claim = ALICE
                async with client(relay.address) as connection:
                    assert (await connection.request()).status == 200
                unknown.setblocking(False)
                with pytest.raises(BlockingIOError):
                    unknown.recv(2000)
        assert resolver.stats()["dropped"] == 3

    loop.run(main)
    said = [record.message for record in caplog.records if "said once" in record.message]
    assert len(said) == (missing == "raise")


def test_bad_datagrams_do_no_harm(loop: Loop) -> None:
    """Empty, cut, overlong and header-only datagrams are counted, and connections go on."""
    header = wire.build("ppv2", BOB)

    async def main() -> None:
        resolver = _resolver()
        app = uoa.middleware.QuicAdapter(tell)
        async with serving(app, resolver=resolver) as at:
            with Relay(at) as relay, udp_socket("127.0.0.1") as balancer:
                relay.claim = ALICE
                async with client(relay.address) as connection:
                    for data in (
                        b"", header, header[:13], header[:-1], header + b"\xc0", bytes(65507),
                        header + bytes(60000), header + b"\xff" * 1200,
                    ):  # fmt: skip
                        balancer.sendto(data, at)
                    for _ in range(3):
                        assert (await connection.request()).json["client"] == [*ALICE]
        stats = resolver.stats()
        assert stats["empty"] == 2
        assert stats["malformed"] == 2

    loop.run(main)


class TestBurst:
    """hypercorn's own queue has room for ten datagrams, and throws the others away."""

    def test_no_datagram_of_a_burst_is_lost(self, loop: Loop) -> None:
        """Each of 200 datagrams that come at once is answered, by Version Negotiation."""

        async def main() -> None:
            async with serving(tell, trust=[]) as at:
                with udp_socket("127.0.0.1") as sender:
                    for number in range(200):
                        ids = b"\x04%04d" % number + b"\x04%04d" % number
                        sender.sendto(b"\xc0\x1a\x2a\x3a\x4a" + ids + b"\0\0", at)
                    sender.setblocking(False)
                    running = asyncio.get_running_loop()
                    answered = {(await running.sock_recv(sender, 2000))[6:10] for _ in range(200)}
            assert answered == {b"%04d" % number for number in range(200)}

        loop.run(main)

    def test_what_waits_is_bounded(self, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
        """While hypercorn is busy datagrams stay in the socket; all come when it goes on."""
        count, seen = 2000, list[int]()

        class Stuck(asyncio.DatagramProtocol):
            """A protocol of hypercorn that takes nothing for now, and spawns nothing."""

            protocol_queue: Any = None
            protocol = types.SimpleNamespace(
                _handle_events=None, task_group=types.SimpleNamespace(spawn=min)
            )

            def connection_made(self, transport: Any) -> None:
                self.transport = transport

        async def main() -> None:
            server: Any = Stuck()
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 23)
            sock.bind(("127.0.0.1", 0))
            endpoints = uoa.hypercorn._Endpoints(uoa.Resolver([]))
            transport, _ = await endpoints.open(lambda: server, sock)
            with udp_socket("127.0.0.1") as sender:
                sender.sendto(b"", sock.getsockname())  # which is consumed
                for number in range(count):
                    sender.sendto(b"%d" % number, sock.getsockname())
            reading: Any = transport
            while reading.is_reading():
                await asyncio.sleep(0)
            assert uoa.hypercorn._HIGH_WATER <= server.protocol_queue.qsize() < 256 + 64
            for _ in range(100):
                await asyncio.sleep(0)
            assert server.protocol_queue.qsize() < 256 + 64
            while len(seen) < count:
                seen.append(int((await server.protocol_queue.get()).data))
            await endpoints.close()
            assert sock.fileno() == -1

        loop.run(main)
        assert seen == list(range(count))

    def test_an_upload_waits_for_a_slow_application(self, loop: Loop) -> None:
        """A body of a megabyte comes whole, also if the application looks away at first."""

        async def main() -> None:
            may_read = asyncio.Event()

            async def slow(scope: Scope, receive: Receive, send: Send) -> None:
                if scope["type"] == "http":
                    await may_read.wait()
                await tell(scope, receive, send)

            async with serving(uoa.middleware.QuicAdapter(slow)) as at, client(at) as connection:
                answer = asyncio.create_task(connection.request(method="POST", body=bytes(1 << 20)))
                for _ in range(200):
                    await asyncio.sleep(0)
                may_read.set()
                assert (await answer).json["received"] == 1 << 20

        loop.run(main)


_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


class TestFrameworks:
    """What applications read, on a server."""

    def test_starlette(self, loop: Loop) -> None:
        """The code of the guide: coroutine endpoints, and plain ones in worker threads."""

        @uoa.real_client
        async def home(request: Request, client: uoa.Client) -> JSONResponse:
            assert request.client is not None
            assert uoa.current() == client
            return JSONResponse([client.host, client.port, request.client.host])

        @uoa.real_client
        def in_thread(request: Request, client: uoa.Client) -> JSONResponse:
            assert uoa.current() == client
            return JSONResponse([client.host, client.port, request["client"][0]])

        app = Starlette(
            routes=[Route("/", home), Route("/thread", in_thread)],
            middleware=[Middleware(uoa.middleware.QuicAdapter)],
        )

        async def main() -> None:
            async with serving(app) as at:
                with Relay(at) as relay:
                    relay.claim = BOB
                    async with client(relay.address) as connection:
                        for path in ("/", "/thread"):
                            answer = await connection.request(path)
                            assert answer.json == [*BOB, BOB[0]]
            assert uoa.current() is None

        loop.run(main)

    def test_hypercorns_own_example(self, loop: Loop) -> None:
        """An application without any middleware sees the client in the scope."""

        class App:
            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                assert scope["type"] in ("lifespan", "http")
                if scope["type"] == "http":
                    seen.append(scope["client"])
                    start = {"status": 200, "headers": [(b"content-length", b"5")]}
                    await send({"type": "http.response.start", **start})
                    await send({"type": "http.response.body", "body": b"hello"})

        seen: list[Any] = []

        async def main() -> None:
            async with serving(App()) as at:
                with Relay(at) as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        assert (await connection.request()).body == b"hello"
            assert seen == [ALICE]
            assert isinstance(seen[0], uoa.Addr)

        loop.run(main)

    def test_wsgi(self, loop: Loop) -> None:
        """REMOTE_ADDR of a WSGI application is the client."""

        def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            return [environ["REMOTE_ADDR"].encode()]

        async def main() -> None:
            async with serving(app, mode="wsgi") as at:
                with Relay(at) as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        assert (await connection.request()).body == ALICE[0].encode()

        loop.run(main)

    def test_a_request_from_a_task(self, loop: Loop) -> None:
        """Tasks that a handler starts know its client; the server's own tasks know none."""
        seen = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":

                async def later() -> None:
                    seen.append(uoa.current())

                await asyncio.create_task(later())
            await tell(scope, receive, send)

        async def outer(scope: Scope, receive: Receive, send: Send) -> None:
            assert uoa.current() is None
            await uoa.middleware.QuicAdapter(app)(scope, receive, send)
            assert uoa.current() is None

        async def main() -> None:
            async with serving(outer) as at:
                with Relay(at) as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        await connection.request()
            [current] = seen
            assert current is not None
            assert (current.host, current.port) == ALICE

        loop.run(main)
