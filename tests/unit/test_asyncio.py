# SPDX-License-Identifier: MIT
"""The datagram endpoint, on both event loops.

Sockets are real and on the loopback interface; every test waits for conditions.
Where the way of the claim does not matter it is a PROXY header, which needs no
privileges.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import importlib
import itertools
import pickle
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Final

import pytest

import uoa
import uoa.asyncio
from tests.capability import need
from tests.senders import Address, send_claim, udp_socket
from uoa import wire
from uoa._native import lib

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


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """Give a test each event loop in turn; what nobody caught fails it."""
    factory = None
    if request.param == "uvloop":
        need("uvloop")
        factory = importlib.import_module("uvloop").new_event_loop
    made = Loop(factory)
    yield made
    assert made.complaints == []


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


class TestReceiving:
    """Who the datagrams are from."""

    @pytest.mark.parametrize("host", HOSTS)
    @pytest.mark.parametrize("client", [ALICE, BOB])
    def test_options_name_the_client(self, loop: Loop, host: str, client: Address) -> None:
        """A protocol sees the client of an option, and of the datagrams after it."""
        need("raw")

        async def main() -> None:
            protocol = Recorder()
            async with endpoint(protocol, host, trust=TRUST) as (_, address):
                with udp_socket(host) as balancer:
                    send_claim(balancer, address, client, b"first")
                    balancer.sendto(b"second", address)
                    received = await protocol.datagrams(2)

                    assert received == [(b"first", client), (b"second", client)]
                    for _, addr in received:
                        assert addr.peer == balancer.getsockname()[:2]
                        assert (addr.client.source, addr.client.dialect) == ("cmsg", "ipo")
                        assert addr.client.local == address[:2]

        loop.run(main)

    @pytest.mark.parametrize("host", HOSTS)
    def test_headers_name_the_client(self, loop: Loop, host: str) -> None:
        """A protocol sees the client of a PROXY header, and the payload behind it."""

        async def main() -> None:
            protocol = Recorder()
            async with endpoint(protocol, host) as (_, address):
                with udp_socket(host) as balancer:
                    for client in (ALICE, BOB):
                        send_claim(balancer, address, client, b"data", "ppv2")

                    assert await protocol.datagrams(2) == [(b"data", ALICE), (b"data", BOB)]

        loop.run(main)

    @pytest.mark.parametrize("host", HOSTS)
    def test_direct_clients_are_themselves(self, loop: Loop, host: str) -> None:
        """A sender outside of `trust` is seen as it is, whatever it says."""

        async def main() -> None:
            protocol = Recorder()
            resolver = uoa.Resolver([], dialects="ppv2")
            async with endpoint(protocol, host, resolver=resolver) as (transport, address):
                with udp_socket(host) as stranger:
                    send_claim(stranger, address, ALICE, b"data", "ppv2")
                    [(data, addr)] = await protocol.datagrams(1)

                    assert addr == (host, stranger.getsockname()[1])
                    assert addr.client.direct
                    assert data.endswith(b"data")
                    assert stats(transport)["untrusted"] == 1

        loop.run(main)

    def test_the_peer_view_reads_as_the_socket_saw_it(self, loop: Loop) -> None:
        """With view="peer" the tuple is the balancer's, in the socket's own form."""

        async def main() -> None:
            for bound, host, form in (
                ("127.0.0.1", "127.0.0.1", lambda port: ("127.0.0.1", port)),
                ("::1", "::1", lambda port: ("::1", port, 0, 0)),
                ("::", "127.0.0.1", lambda port: ("::ffff:127.0.0.1", port, 0, 0)),
            ):
                protocol = Recorder(answer=True)
                async with endpoint(protocol, bound, view="peer") as (_, address):
                    with udp_socket(host) as balancer:
                        send_claim(balancer, (host, address[1]), ALICE, b"data", "ppv2")
                        [(_, addr)] = await protocol.datagrams(1)

                        assert addr == form(balancer.getsockname()[1])
                        assert (addr.client.host, addr.client.port) == ALICE
                        assert await receive(balancer) == b"data"

        loop.run(main)

    def test_more_than_a_batch_arrives_in_order(self, loop: Loop) -> None:
        """What waits is read in several batches, and the loop's other work has its turn between."""

        async def main() -> None:
            protocol, seen = Recorder(), [0]

            def look() -> None:
                seen.append(len(protocol.received))
                if seen[-1] < 300:
                    asyncio.get_running_loop().call_soon(look)

            with udp_socket("127.0.0.1") as server, udp_socket("127.0.0.1") as balancer:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 212_992)
                for number in range(300):
                    client = ("203.0.113.7", number + 1)
                    send_claim(balancer, server.getsockname(), client, b"%d" % number, "ppv2")
                async with endpoint(protocol, sock=server):
                    look()
                    received = await protocol.datagrams(300)

            assert received == [(b"%d" % n, ("203.0.113.7", n + 1)) for n in range(300)]
            assert max(b - a for a, b in itertools.pairwise(seen)) <= 4 * lib.UOA_BATCH

        loop.run(main)

    def test_many_clients_in_one_batch_are_told_apart(self, loop: Loop) -> None:
        """In a batch from 50 balancers' ports each datagram has the client that it names."""

        async def main() -> None:
            protocol = Recorder()
            with ExitStack() as stack:
                server = stack.enter_context(udp_socket("127.0.0.1"))
                sockets = [stack.enter_context(udp_socket("127.0.0.1")) for _ in range(50)]
                expected = []
                for turn in range(4):
                    for number, balancer in enumerate(sockets):
                        client = ("203.0.113.7", 1 + number + 50 * (turn % 2))
                        send_claim(balancer, server.getsockname(), client, b"", "ppv2")
                        expected.append((client, balancer.getsockname()))
                async with endpoint(protocol, sock=server):
                    received = await protocol.datagrams(200)

            assert [(addr, addr.peer) for _, addr in received] == expected

        loop.run(main)

    def test_whole_batches_for_protocols_that_take_them(self, loop: Loop) -> None:
        """A protocol with datagrams_received() gets lists, of at most a batch each."""

        async def main() -> None:
            protocol = BatchRecorder()
            with udp_socket("127.0.0.1") as server, udp_socket("127.0.0.1") as balancer:
                for number in range(100):
                    send_claim(balancer, server.getsockname(), ALICE, b"%d" % number, "ppv2")
                async with endpoint(protocol, sock=server):
                    received = await protocol.datagrams(100)

            assert received == [(b"%d" % n, ALICE) for n in range(100)]
            assert protocol.batches == [64, 36]

        loop.run(main)

    def test_empty_datagrams_are_delivered(self, loop: Loop) -> None:
        """An empty datagram and a header with nothing behind it are datagrams."""

        async def main() -> None:
            protocol = Recorder()
            async with endpoint(protocol) as (_, address):
                with udp_socket("127.0.0.1") as balancer:
                    balancer.sendto(b"", address)
                    send_claim(balancer, address, ALICE, b"", "ppv2")
                    received = await protocol.datagrams(2)

                    assert received == [(b"", balancer.getsockname()), (b"", ALICE)]

        loop.run(main)

    @pytest.mark.parametrize(("host", "size"), [("127.0.0.1", 65507), ("::1", 65527)])
    def test_the_largest_datagrams_pass(self, loop: Loop, host: str, size: int) -> None:
        """The longest datagram that IP can carry arrives whole, and is answered whole."""

        async def main() -> None:
            protocol = Recorder(answer=True)
            data = bytes(range(256)) * 256
            async with endpoint(protocol, host) as (_, address):
                with udp_socket(host) as client:
                    client.sendto(data[:size], address)
                    await protocol.until(lambda: protocol.received or protocol.errors)

                    assert protocol.errors == []
                    assert protocol.received[0][0] == data[:size]
                    assert await receive(client) == data[:size]

        loop.run(main)

    def test_an_exception_in_the_protocol_does_not_stop_the_endpoint(self, loop: Loop) -> None:
        """What datagram_received() raises is reported, and the next datagram is delivered."""

        class Fragile(Recorder):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                super().datagram_received(data, addr)
                if data == b"break":
                    raise ZeroDivisionError(data)

        async def main() -> None:
            protocol = Fragile()
            with udp_socket("127.0.0.1") as server, udp_socket("127.0.0.1") as client:
                for data in (b"one", b"break", b"two", b"break", b"three"):
                    client.sendto(data, server.getsockname())
                async with endpoint(protocol, sock=server) as (transport, _):
                    received = await protocol.datagrams(5)
                    for complaint in loop.complaints:
                        assert isinstance(complaint["exception"], ZeroDivisionError)
                        assert complaint["transport"] is transport
                        assert complaint["protocol"] is protocol

            assert [data for data, _ in received] == [b"one", b"break", b"two", b"break", b"three"]
            assert len(loop.complaints) == 2
            loop.complaints.clear()

        loop.run(main)

    def test_datagrams_from_before_the_endpoint_belong_to_their_flow(self, loop: Loop) -> None:
        """An option that waited in a wildcard-bound socket names the datagrams that follow."""
        need("raw")

        async def main() -> None:
            protocol = Recorder()
            with udp_socket("0.0.0.0") as server, udp_socket("127.0.0.1") as balancer:
                address = ("127.0.0.1", server.getsockname()[1])
                send_claim(balancer, address, ALICE, b"early")
                async with endpoint(protocol, sock=server, trust=TRUST):
                    balancer.sendto(b"late", address)
                    received = await protocol.datagrams(2)

            assert received == [(b"early", ALICE), (b"late", ALICE)]
            assert [addr.client.local for _, addr in received] == [address, address]

        loop.run(main)


class TestReplying:
    """Where datagrams go that the protocol sends."""

    @pytest.mark.parametrize("host", HOSTS)
    def test_replies_reach_the_peer(self, loop: Loop, host: str) -> None:
        """A reply to what reads as the client goes back through the balancer's socket."""

        async def main() -> None:
            protocol = Recorder(answer=True)
            async with endpoint(protocol, host) as (_, address):
                with udp_socket(host) as one, udp_socket(host) as other:
                    for number in range(10):
                        for balancer, client in ((one, ALICE), (other, ALICE)):
                            data = b"%d %d" % (number, balancer.fileno())
                            send_claim(balancer, address, client, data, "ppv2")
                            assert await receive(balancer) == data

        loop.run(main)

    def test_a_wildcard_socket_answers_from_where_it_was_asked(self, loop: Loop) -> None:
        """On a dual-stack wildcard socket a reply leaves from the address the question came to."""

        async def main() -> None:
            protocol = Recorder(answer=True)
            async with endpoint(protocol, "::") as (_, address):
                for host, server in (
                    ("127.0.0.1", "127.0.0.1"),
                    ("127.0.0.1", "127.0.0.2"),
                    ("::1", "::1"),
                ):
                    with udp_socket(host) as balancer:
                        balancer.connect((server, address[1]))  # takes answers from there only
                        balancer.send(wire.build("ppv2", ALICE) + server.encode())
                        assert await receive(balancer) == server.encode()
                        _, addr = protocol.received[-1]
                        assert (addr, addr.client.local) == (ALICE, (server, address[1]))

        loop.run(main)

    def test_an_ipv4_wildcard_socket_does_so_too(self, loop: Loop) -> None:
        """The same holds on a socket bound to 0.0.0.0."""

        async def main() -> None:
            protocol = Recorder(answer=True)
            async with endpoint(protocol, "0.0.0.0") as (_, address):
                for server in ("127.0.0.1", "127.0.0.2", "127.9.9.9"):
                    with udp_socket("127.0.0.1") as balancer:
                        balancer.connect((server, address[1]))
                        balancer.send(b"data")
                        assert await receive(balancer) == b"data"

        loop.run(main)

    @pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
    def test_a_broadcast_is_answered_by_the_host(self, loop: Loop, bound: str) -> None:
        """The answer to a broadcast leaves from an address of the host, on a dual stack too."""

        async def main() -> None:
            protocol = Recorder(answer=True)
            async with endpoint(protocol, bound) as (_, address):
                with udp_socket("127.0.0.1") as client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                    client.sendto(b"data", ("127.255.255.255", address[1]))
                    await protocol.until(lambda: protocol.received or protocol.errors)

                    assert await receive(client) == b"data"
                    assert protocol.received[0][1].client.local == ("127.0.0.1", address[1])

        loop.run(main)

    def test_copies_of_an_address_still_reach_the_peer(self, loop: Loop) -> None:
        """A copied, deep-copied or pickled address routes a reply as the original does."""

        async def main() -> None:
            protocol = Recorder()
            async with endpoint(protocol) as (transport, address):
                with udp_socket("127.0.0.1") as balancer:
                    send_claim(balancer, address, ALICE, b"", "ppv2")
                    [(_, addr)] = await protocol.datagrams(1)
                    for twin in (
                        copy.copy(addr),
                        copy.deepcopy({"client": addr})["client"],
                        pickle.loads(pickle.dumps(addr)),
                    ):
                        transport.sendto(b"data", twin)
                        assert await receive(balancer) == b"data"

        loop.run(main)

    @pytest.mark.parametrize("host", HOSTS)
    def test_plain_tuples_are_where_they_say(self, loop: Loop, host: str) -> None:
        """A plain address is sent to as it is, in every form that sendto() takes."""

        async def main() -> None:
            async with endpoint(Recorder(), host) as (transport, _):
                with udp_socket(host) as other:
                    address = other.getsockname()
                    for form in (address, address[:2], list(address)):
                        transport.sendto(b"data", form)
                        assert await receive(other) == b"data"

        loop.run(main)

    def test_sending_needs_no_callback(self, loop: Loop) -> None:
        """A datagram that is sent from a task leaves at once, whatever bytes-like it is."""

        async def main() -> None:
            async with endpoint(Recorder()) as (transport, _):
                with udp_socket("127.0.0.1") as other:
                    for data in (b"data", bytearray(b"data"), memoryview(b"xdatax")[1:5], b""):
                        transport.sendto(data, other.getsockname())
                        other.setblocking(False)
                        assert other.recv(100) == bytes(data)

        loop.run(main)

    def test_what_is_no_bytes_is_refused(self, loop: Loop) -> None:
        """Text cannot be sent, and the error is that of the loop's own transports."""

        async def main() -> None:
            async with endpoint(Recorder()) as (transport, address):
                with pytest.raises(TypeError, match="bytes-like"):
                    transport.sendto("data", address)

        loop.run(main)

    def test_what_cannot_be_sent_is_an_error_received(self, loop: Loop) -> None:
        """Too long, or of the wrong family: the protocol is told, and the next datagram leaves."""

        async def main() -> None:
            protocol = Recorder()
            async with endpoint(protocol) as (transport, _):
                with udp_socket("127.0.0.1") as other:
                    transport.sendto(bytes(LARGEST + 1), other.getsockname())
                    transport.sendto(bytes(70_000), other.getsockname())
                    transport.sendto(b"data", ("::1", 9))
                    transport.sendto(b"data", other.getsockname())
                    assert await receive(other) == b"data"

            assert [getattr(error, "errno", None) for error in protocol.errors] == [
                errno.EMSGSIZE,
                errno.EMSGSIZE,
                errno.EAFNOSUPPORT,
            ]

        loop.run(main)

    def test_a_batch_of_answers_survives_one_that_cannot_be_sent(self, loop: Loop) -> None:
        """Of the answers to one batch all leave but the one that the kernel refuses."""

        class Odd(Recorder):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                super().datagram_received(data, addr)
                self.transport.sendto(bytes(LARGEST + 1) if data == b"odd" else data, addr)

        async def main() -> None:
            protocol = Odd()
            with udp_socket("127.0.0.1") as server, udp_socket("127.0.0.1") as client:
                for data in (b"one", b"odd", b"two"):
                    client.sendto(data, server.getsockname())
                async with endpoint(protocol, sock=server):
                    assert [await receive(client), await receive(client)] == [b"one", b"two"]

            assert len(protocol.errors) == 1

        loop.run(main)


class TestMissing:
    """What becomes of datagrams whose client is unknown."""

    @staticmethod
    async def unknown_and_known(protocol: Recorder, missing: str) -> dict[str, int]:
        """Let two unknown datagrams and a known one arrive; return the counters."""
        with udp_socket("127.0.0.1") as server, udp_socket("127.0.0.1") as balancer:
            resolver = uoa.Resolver(TRUST, dialects="ppv2", missing=missing)  # type: ignore[arg-type]
            balancer.sendto(b"unknown", server.getsockname())
            balancer.sendto(wire.build_local() + b"local", server.getsockname())
            balancer.sendto(b"unknown", server.getsockname())
            send_claim(balancer, server.getsockname(), ALICE, b"known", "ppv2")
            async with endpoint(protocol, sock=server, resolver=resolver) as (transport, _):
                await protocol.until(lambda: (b"known", ALICE) in protocol.received)
                return stats(transport)

    @pytest.mark.parametrize("make", [Recorder, BatchRecorder])
    @pytest.mark.parametrize("missing", ["peer", "drop", "raise"])
    def test_each_word_does_what_it_says(
        self, loop: Loop, make: Callable[[], Recorder], missing: str
    ) -> None:
        """ "peer" delivers, "drop" drops and counts, "raise" reports; LOCAL is never missing."""

        async def main() -> None:
            protocol = make()
            counters = await self.unknown_and_known(protocol, missing)
            data = [data for data, _ in protocol.received]

            assert counters["unknown"] == 2
            if missing == "peer":
                assert data == [b"unknown", b"local", b"unknown", b"known"]
                assert not protocol.received[0][1].client.resolved
            else:
                assert data == [b"local", b"known"]
                assert counters["dropped"] == 2
            assert [type(error) for error in protocol.errors] == (
                [uoa.UnknownClientError] * 2 if missing == "raise" else []
            )
            for error in protocol.errors:
                assert isinstance(error, uoa.UnknownClientError)
                assert error.peer == protocol.received[0][1].peer

        loop.run(main)

    def test_a_batch_of_nothing_is_not_delivered(self, loop: Loop) -> None:
        """When all datagrams of a batch are dropped the protocol is not called."""

        async def main() -> None:
            protocol = BatchRecorder()
            resolver = uoa.Resolver(TRUST, dialects="ppv2", missing="drop")
            async with endpoint(protocol, resolver=resolver) as (_, address):
                with udp_socket("127.0.0.1") as balancer:
                    balancer.sendto(b"unknown", address)
                    while resolver.stats()["dropped"] == 0:
                        await asyncio.sleep(0)
                    send_claim(balancer, address, ALICE, b"known", "ppv2")
                    await protocol.datagrams(1)

            assert protocol.batches == [1]

        loop.run(main)


class FullSocket:
    """libuoa on a socket that takes datagrams only when `takes()` says so."""

    def __init__(self) -> None:
        self.takes: Callable[[], bool] = lambda: False
        self._queued = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(lib, name)

    def uoa_sender_put(self, *arguments: Any) -> int:
        """Queue a datagram, and count it."""
        result = lib.uoa_sender_put(*arguments)
        self._queued += result == 0
        return result

    def uoa_sender_flush(self, sender: Any) -> int:
        """Send what is queued, or tell how much that is."""
        if self.takes():
            self._queued = lib.uoa_sender_flush(sender)
        return self._queued


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> FullSocket:
    """Make all sockets of endpoints full, until the test lets them take something."""
    fake = FullSocket()
    monkeypatch.setattr(uoa.asyncio, "lib", fake)
    return fake


async def receive_all(sock: socket.socket, count: int) -> list[int]:
    """Wait for that many numbered datagrams."""
    return [int(await receive(sock)) for _ in range(count)]


class TestFullSocket:
    """The socket takes no more: datagrams wait, in order, and the protocol is told."""

    def test_writing_is_paused_and_resumed(self, loop: Loop, full: FullSocket) -> None:
        """Above the high-water mark the protocol is paused, below the low one resumed."""

        async def main() -> None:
            protocol = Recorder()
            async with endpoint(protocol) as (transport, _):
                with udp_socket("127.0.0.1") as other:
                    transport.set_write_buffer_limits(high=100, low=50)
                    assert transport.get_write_buffer_limits() == (50, 100)
                    sent = 0
                    while "pause" not in protocol.events:
                        transport.sendto(b"%010d" % sent, other.getsockname())
                        sent += 1
                    assert transport.get_write_buffer_size() == 110
                    full.takes = lambda: True
                    await protocol.until(lambda: "resume" in protocol.events)

                    assert transport.get_write_buffer_size() == 0
                    assert await receive_all(other, sent) == list(range(sent))

            assert protocol.events == ["made", "pause", "resume", "lost"]

        loop.run(main)

    def test_writing_is_not_resumed_too_early(self, loop: Loop, full: FullSocket) -> None:
        """A socket that takes a little leaves the protocol paused until the low-water mark."""

        class Measuring(Recorder):
            def resume_writing(self) -> None:
                super().resume_writing()
                sizes.append(self.transport.get_write_buffer_size())  # type: ignore[attr-defined]

        sizes: list[int] = []

        async def main() -> None:
            turns = itertools.count()
            protocol = Measuring()
            async with endpoint(protocol) as (transport, _):
                with udp_socket("127.0.0.1") as other:
                    transport.set_write_buffer_limits(high=1000, low=400)
                    for number in range(200):
                        transport.sendto(b"%010d" % number, other.getsockname())
                    full.takes = lambda: next(turns) % 3 == 0
                    await receive_all(other, 200)

            assert protocol.events == ["made", "pause", "resume", "lost"]

        loop.run(main)
        assert 0 < sizes[0] <= 400

    def test_the_order_is_kept(self, loop: Loop, full: FullSocket) -> None:
        """A socket that takes a little from time to time gets everything, in order."""

        async def main() -> None:
            turns = itertools.count()
            async with endpoint(Recorder()) as (transport, _):
                with udp_socket("127.0.0.1") as other:
                    for number in range(220):
                        transport.sendto(b"%d" % number, other.getsockname())
                    full.takes = lambda: next(turns) % 3 == 0

                    assert await receive_all(other, 220) == list(range(220))

        loop.run(main)

    @pytest.mark.parametrize("count", [1, 64, 65, 200])
    def test_close_waits_for_what_waits(self, loop: Loop, full: FullSocket, count: int) -> None:
        """After close() what was given to sendto() still leaves, and only then is it over."""

        async def main() -> None:
            protocol = Recorder()
            with udp_socket("127.0.0.1") as other:
                async with endpoint(protocol) as (transport, _):
                    for number in range(count):
                        transport.sendto(b"%d" % number, other.getsockname())
                    transport.close()
                    transport.sendto(b"too late", other.getsockname())
                    for _ in range(10):
                        await asyncio.sleep(0)
                    assert (transport.is_closing(), protocol.events) == (True, ["made"])
                    full.takes = lambda: True
                    await protocol.until(lambda: "lost" in protocol.events)

                assert await receive_all(other, count) == list(range(count))
                with pytest.raises(BlockingIOError):
                    other.recv(100)

        loop.run(main)

    def test_close_in_a_callback_waits_too(self, loop: Loop, full: FullSocket) -> None:
        """A protocol that answers and closes in one callback has its answer sent."""

        class Last(Recorder):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                super().datagram_received(data, addr)
                self.transport.sendto(b"1", addr)
                self.transport.close()

        async def main() -> None:
            protocol = Last()
            with udp_socket("127.0.0.1") as client:
                async with endpoint(protocol) as (_, address):
                    client.sendto(b"data", address)
                    await protocol.datagrams(1)
                    for _ in range(10):
                        await asyncio.sleep(0)
                    assert protocol.events == ["made"]
                    full.takes = lambda: True

                    assert await receive_all(client, 1) == [1]

        loop.run(main)

    def test_abort_waits_for_nothing(self, loop: Loop, full: FullSocket) -> None:
        """After abort() nothing is sent, and the end comes at once."""

        async def main() -> None:
            protocol = Recorder()
            with udp_socket("127.0.0.1") as other, udp_socket("127.0.0.1") as third:
                async with endpoint(protocol) as (transport, _):
                    for _ in range(100):
                        transport.sendto(b"0", other.getsockname())
                    transport.close()
                    transport.abort()
                    await protocol.until(lambda: "lost" in protocol.events)
                    full.takes = lambda: True
                third.sendto(b"1", other.getsockname())

                assert await receive_all(other, 1) == [1]

        loop.run(main)


class TestClosing:
    """The end of an endpoint."""

    def test_nothing_is_delivered_after_close(self, loop: Loop) -> None:
        """A protocol that closes at its first datagram gets no second one of the batch."""

        class First(Recorder):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                super().datagram_received(data, addr)
                self.transport.sendto(data, addr)
                self.transport.close()

        async def main() -> None:
            protocol = First()
            with udp_socket("127.0.0.1") as server, udp_socket("127.0.0.1") as client:
                for number in range(100):
                    client.sendto(b"%d" % number, server.getsockname())
                async with endpoint(protocol, sock=server):
                    await protocol.until(lambda: "lost" in protocol.events)

                assert await receive_all(client, 1) == [0]
            assert len(protocol.received) == 1
            assert server.fileno() == -1

        loop.run(main)

    def test_abort_in_a_callback(self, loop: Loop) -> None:
        """A protocol may abort in the middle of a batch."""

        class Aborting(Recorder):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                super().datagram_received(data, addr)
                self.transport.abort()

        async def main() -> None:
            protocol = Aborting()
            with udp_socket("127.0.0.1") as server, udp_socket("127.0.0.1") as client:
                for number in range(3):
                    client.sendto(b"%d" % number, server.getsockname())
                async with endpoint(protocol, sock=server) as (transport, _):
                    await protocol.until(lambda: "lost" in protocol.events)
                    transport.abort()
                    transport.close()

            assert len(protocol.received) == 1
            assert protocol.events == ["made", "lost"]

        loop.run(main)

    def test_close_in_connection_made(self, loop: Loop) -> None:
        """A protocol may close before it has begun."""

        class Reluctant(Recorder):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.transport.close()

        async def main() -> None:
            protocol = Reluctant()
            async with endpoint(protocol):
                pass

            assert protocol.events == ["made", "lost"]

        loop.run(main)

    def test_a_resolver_of_the_transport_is_closed_with_it(self, loop: Loop) -> None:
        """With `trust` the resolver belongs to the transport, with `resolver` to the caller."""

        async def main() -> None:
            async with endpoint(Recorder(), trust=TRUST) as (transport, _):
                own = transport.get_extra_info("uoa.resolver")
                assert own.trust == tuple(TRUST.split(","))
            with pytest.raises(uoa.ClosedError):
                own.stats()

            lent = uoa.Resolver(TRUST)
            async with endpoint(Recorder(), resolver=lent) as (transport, _):
                assert transport.get_extra_info("uoa.resolver") is lent
            assert lent.stats()["datagrams"] == 0

        loop.run(main)

    def test_a_resolver_that_is_closed_too_early_is_reported(self, loop: Loop) -> None:
        """An endpoint whose resolver was closed reports that, and breaks nothing."""

        async def main() -> None:
            resolver = uoa.Resolver(TRUST)
            async with endpoint(Recorder(), resolver=resolver) as (_, address):
                resolver.close()
                with udp_socket("127.0.0.1") as client:
                    client.sendto(b"data", address)
                    while not loop.complaints:
                        await asyncio.sleep(0)

            assert isinstance(loop.complaints[0]["exception"], uoa.ClosedError)
            loop.complaints.clear()

        loop.run(main)

    def test_serve_ends_when_it_is_cancelled(self, loop: Loop) -> None:
        """serve() serves until it is cancelled, then closes what it opened."""

        async def main() -> None:
            protocol = Recorder(answer=True)
            task = asyncio.create_task(
                uoa.asyncio.serve(lambda: protocol, "127.0.0.1", 0, trust=TRUST)
            )
            await protocol.until(lambda: "made" in protocol.events)
            with udp_socket("127.0.0.1") as client:
                client.sendto(b"data", protocol.transport.get_extra_info("sockname"))
                assert await receive(client) == b"data"
            task.cancel()
            await protocol.until(lambda: "lost" in protocol.events)
            with pytest.raises(asyncio.CancelledError):
                await task

        loop.run(main)

    def test_opening_that_is_cancelled_leaves_nothing(self, loop: Loop) -> None:
        """Whoever gives up while the endpoint opens gets it closed."""

        async def main() -> None:
            protocol = Recorder()
            with udp_socket("127.0.0.1") as server:
                task = asyncio.create_task(
                    uoa.asyncio.create_datagram_endpoint(
                        lambda: protocol, sock=server, resolver=uoa.Resolver(TRUST)
                    )
                )
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await protocol.until(lambda: "lost" in protocol.events)

                assert server.fileno() == -1

        loop.run(main)


class TestOpening:
    """The arguments, which are the loop's own, and what is refused."""

    def test_connected_endpoints_need_no_address(self, loop: Loop) -> None:
        """With remote_addr the socket is connected, and sendto() needs no address."""

        async def main() -> None:
            protocol = Recorder()
            with udp_socket("127.0.0.1") as server:
                address = server.getsockname()
                async with endpoint(protocol, local_addr=None, remote_addr=address) as opened:
                    transport, local = opened
                    assert transport.get_extra_info("peername") == address
                    transport.sendto(b"question")
                    assert await receive(server) == b"question"
                    server.sendto(b"answer", local)
                    assert await protocol.datagrams(1) == [(b"answer", address)]

        loop.run(main)

    def test_a_refused_connection_is_an_error_received(self, loop: Loop) -> None:
        """When nobody listens at the other end the protocol is told."""

        async def main() -> None:
            protocol = Recorder()
            with udp_socket("127.0.0.1") as gone:
                address = gone.getsockname()
            async with endpoint(protocol, local_addr=None, remote_addr=address) as (transport, _):
                transport.sendto(b"anybody?")
                await protocol.until(lambda: protocol.errors)

            assert isinstance(protocol.errors[0], ConnectionRefusedError)

        loop.run(main)

    def test_the_transport_tells_of_its_socket(self, loop: Loop) -> None:
        """get_extra_info() knows what the loop's own transports know, and the resolver."""

        async def main() -> None:
            protocol = Recorder()
            with udp_socket("127.0.0.1") as sock:
                async with endpoint(protocol, sock=sock) as (transport, _):
                    assert transport.get_extra_info("socket") is sock
                    assert transport.get_extra_info("sockname") == sock.getsockname()
                    assert transport.get_extra_info("peername") is None
                    assert transport.get_extra_info("nothing", "default") == "default"
                    assert transport.get_protocol() is protocol
                    successor = Recorder()
                    transport.set_protocol(successor)
                    sock.sendto(b"data", sock.getsockname())
                    assert await successor.datagrams(1) == [(b"data", sock.getsockname())]
                    transport.set_protocol(protocol)
            assert protocol.received == []

        loop.run(main)

    def test_one_socket_a_worker(self, loop: Loop) -> None:
        """With reuse_port two endpoints share a port."""

        async def main() -> None:
            async with endpoint(Recorder(), reuse_port=True, allow_broadcast=True) as (
                one,
                address,
            ):
                async with endpoint(Recorder(), local_addr=address, reuse_port=True) as (_, same):
                    assert same == address
                sock = one.get_extra_info("socket")
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == 1
                with pytest.raises(OSError, match="in use"):
                    await uoa.asyncio.create_datagram_endpoint(
                        Recorder, local_addr=address, trust=[]
                    )

        loop.run(main)

    def test_a_family_is_enough(self, loop: Loop) -> None:
        """Without addresses the family alone makes a socket."""
        need("ipv6")

        async def main() -> None:
            async with endpoint(Recorder(), local_addr=None, family=socket.AF_INET6) as (
                _,
                address,
            ):
                assert address[0] == "::"

        loop.run(main)

    @pytest.mark.parametrize(
        ("arguments", "error", "text"),
        [
            ({"trust": None}, uoa.TrustError, "UOA_TRUST"),
            ({"trust": "nonsense"}, uoa.TrustError, "'nonsense'"),
            ({"trust": [], "resolver": uoa.Resolver([])}, uoa.ConfigurationError, "one of the two"),
            ({"trust": [], "view": "both"}, uoa.ConfigurationError, "'both'"),
            ({"trust": [], "local_addr": None}, ValueError, "unexpected address family"),
            ({"trust": [], "remote_addr": ("::1", 9)}, ValueError, "address information"),
            ({"trust": [], "local_addr": ("192.0.2.1", 0)}, OSError, "assign requested address"),
        ],
    )
    def test_wrong_arguments_are_refused(
        self,
        loop: Loop,
        monkeypatch: pytest.MonkeyPatch,
        arguments: dict[str, Any],
        error: type[Exception],
        text: str,
    ) -> None:
        """An endpoint that cannot be opened is an error that says why, and leaves nothing."""
        monkeypatch.delenv("UOA_TRUST", raising=False)

        async def main() -> None:
            with pytest.raises(error, match=text):
                await uoa.asyncio.create_datagram_endpoint(
                    Recorder, **{"local_addr": ("127.0.0.1", 0), **arguments}
                )

        loop.run(main)

    @pytest.mark.parametrize(
        ("kind", "arguments", "error", "text"),
        [
            ((socket.AF_INET, socket.SOCK_STREAM), {}, ValueError, "datagram socket was expected"),
            ((socket.AF_UNIX, socket.SOCK_DGRAM), {}, uoa.BackendError, "neither AF_INET nor"),
            (
                (socket.AF_INET, socket.SOCK_DGRAM),
                {"local_addr": ("127.0.0.1", 0)},
                ValueError,
                "when sock is specified",
            ),
        ],
    )
    def test_wrong_sockets_are_refused_and_left_open(
        self,
        loop: Loop,
        kind: tuple[int, int],
        arguments: dict[str, Any],
        error: type[Exception],
        text: str,
    ) -> None:
        """A socket that cannot be served is its owner's to close."""

        async def main() -> None:
            with socket.socket(*kind) as sock:
                with pytest.raises(error, match=text):
                    await uoa.asyncio.create_datagram_endpoint(
                        Recorder, sock=sock, trust=[], **arguments
                    )
                assert sock.fileno() >= 0

        loop.run(main)

    def test_udp_gro_is_refused_until_it_is_off(self, loop: Loop) -> None:
        """Datagrams that the kernel glues together have no client each: the error says so."""

        async def main() -> None:
            with udp_socket("127.0.0.1") as sock:
                sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
                with pytest.raises(uoa.BackendError, match="switch it off") as caught:
                    await uoa.asyncio.create_datagram_endpoint(Recorder, sock=sock, trust=[])
                assert caught.value.errno == errno.EOPNOTSUPP
                sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 0)
                async with endpoint(Recorder(), sock=sock):
                    pass

        loop.run(main)

    def test_a_factory_that_fails_leaves_no_socket(self, loop: Loop) -> None:
        """What the protocol factory raises comes out, and the port is free again."""

        def factory() -> Recorder:
            raise ZeroDivisionError

        async def main() -> None:
            with udp_socket("127.0.0.1") as probe:
                address = probe.getsockname()
            with pytest.raises(ZeroDivisionError):
                await uoa.asyncio.create_datagram_endpoint(factory, address, trust=[])
            with udp_socket(*address):
                pass

        loop.run(main)

    def test_water_marks_must_make_sense(self, loop: Loop) -> None:
        """The limits follow the loop's own rules: the low mark is a quarter, and below."""

        async def main() -> None:
            async with endpoint(Recorder()) as (transport, _):
                assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
                transport.set_write_buffer_limits(low=100)
                assert transport.get_write_buffer_limits() == (100, 400)
                transport.set_write_buffer_limits(high=100)
                assert transport.get_write_buffer_limits() == (25, 100)
                with pytest.raises(ValueError, match="must be >= low"):
                    transport.set_write_buffer_limits(high=1, low=2)

        loop.run(main)
