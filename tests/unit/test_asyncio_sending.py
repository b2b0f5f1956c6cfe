# SPDX-License-Identifier: MIT
"""What an endpoint sends, and what it does when the socket takes no more."""

from __future__ import annotations

import asyncio
import copy
import errno
import itertools
import pickle
import socket
from collections.abc import Callable
from typing import Any

import pytest

import uoa
import uoa.asyncio
from tests.senders import send_claim, udp_socket
from tests.unit.endpoints import (
    ALICE,
    HOSTS,
    LARGEST,
    TRUST,
    Loop,
    Recorder,
    endpoint,
    receive,
    receive_all,
)
from uoa import wire
from uoa._native import lib


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


def test_a_connected_endpoint_answers_spp_with_its_header(loop: Loop) -> None:
    """Without an address the answer is to what came last, header included if it had one."""

    async def main() -> None:
        protocol = Recorder()
        with udp_socket("127.0.0.1") as balancer:
            async with endpoint(
                protocol,
                remote_addr=balancer.getsockname(),
                resolver=uoa.Resolver(TRUST, dialects="spp"),
            ) as (transport, address):
                transport.sendto(b"first")
                assert await receive(balancer) == b"first"
                header = uoa.wire.build("spp", ALICE, vip=("198.51.100.80", 443))
                balancer.setblocking(True)
                balancer.sendto(header + b"question", address)
                assert await protocol.datagrams(1) == [(b"question", ALICE)]
                transport.sendto(b"answer")
                assert await receive(balancer) == header + b"answer"

    loop.run(main)


class FullSocket:
    """libuoa on a socket that takes datagrams only when `takes()` says so."""

    def __init__(self) -> None:
        self.takes: Callable[[], bool] = lambda: False
        self._queued = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(lib, name)

    def _counted(self, result: int) -> int:
        self._queued += result == 0
        return result

    def uoa_sender_put(self, *arguments: Any) -> int:
        """Queue a datagram, and count it."""
        return self._counted(lib.uoa_sender_put(*arguments))

    def uoa_sender_reply(self, *arguments: Any) -> int:
        """The same for a reply."""
        return self._counted(lib.uoa_sender_reply(*arguments))

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

    def test_abort_while_the_waiting_ones_leave(self, loop: Loop, full: FullSocket) -> None:
        """A protocol may abort because one of the datagrams that waited cannot be sent."""

        class Strict(Recorder):
            def error_received(self, exc: Exception) -> None:
                super().error_received(exc)
                self.transport.abort()

        async def main() -> None:
            protocol = Strict()
            with udp_socket("127.0.0.1") as other:
                async with endpoint(protocol) as (transport, _):
                    for _ in range(lib.UOA_BATCH + 1):
                        transport.sendto(b"0", other.getsockname())
                    transport.sendto(bytes(70_000), other.getsockname())
                    full.takes = lambda: True
                    await protocol.until(lambda: "lost" in protocol.events)

            assert len(protocol.errors) == 1

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
