# SPDX-License-Identifier: MIT
"""What an endpoint hands to its protocol, on both event loops."""

from __future__ import annotations

import asyncio
import itertools
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

import uoa
import uoa.asyncio
from tests.capability import need
from tests.senders import Address, send_claim, udp_socket
from tests.unit.endpoints import (
    ALICE,
    BOB,
    HOSTS,
    TRUST,
    BatchRecorder,
    Loop,
    Recorder,
    endpoint,
    receive,
    stats,
)
from uoa import wire
from uoa._native import lib


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

    @pytest.mark.parametrize("host", HOSTS)
    def test_a_standalone_option_is_of_its_flow(self, loop: Loop, host: str) -> None:
        """An option that comes alone is an empty datagram, and names those that follow."""
        need("raw")

        async def main() -> None:
            protocol = Recorder()
            async with endpoint(protocol, host, trust=TRUST) as (transport, address):
                with udp_socket(host) as balancer:
                    send_claim(balancer, address, ALICE)
                    balancer.sendto(b"data", address)
                    received = await protocol.datagrams(2)

                    assert received == [(b"", ALICE), (b"data", ALICE)]
                    assert stats(transport)["found_ipo"] == 1

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

    def test_what_the_socket_loses_is_counted(self, loop: Loop) -> None:
        """Datagrams that found the receive buffer full are in the counters, to the last one."""

        async def main() -> None:
            protocol = Recorder()
            async with endpoint(protocol) as (transport, address):
                sock = transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                with udp_socket("127.0.0.1") as client:
                    sent = 0
                    while not stats(transport)["receive_drops"]:
                        for _ in range(200):  # all of them before the loop reads
                            client.sendto(bytes(100), address)
                        sent += 200
                        await protocol.datagrams(len(protocol.received) + 1)
                    # The last ones were lost after the last reading.
                    client.sendto(b"end", address)
                    await protocol.until(lambda: protocol.received[-1][0] == b"end")

                    assert len(protocol.received) + stats(transport)["receive_drops"] == sent + 1

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


async def readable(transport: asyncio.BaseTransport) -> None:
    """Wait until a datagram is in the socket, and the loop has been round since."""
    sock = transport.get_extra_info("socket")
    await asyncio.to_thread(select.select, [sock], [], [])
    for _ in range(3):
        await asyncio.sleep(0)


class TestPausing:
    """pause_reading() and resume_reading(), as stream transports have them."""

    def test_what_comes_meanwhile_waits(self, loop: Loop) -> None:
        """A paused endpoint leaves datagrams in the socket, and hands them over when resumed."""

        async def main() -> None:
            protocol = Recorder()
            async with endpoint(protocol) as (transport, address):
                with udp_socket("127.0.0.1") as sock:
                    sock.sendto(b"first", address)
                    await protocol.datagrams(1)
                    transport.pause_reading()
                    assert not transport.is_reading()
                    sock.sendto(b"second", address)
                    sock.sendto(b"third", address)
                    await readable(transport)
                    assert len(protocol.received) == 1
                    transport.resume_reading()
                    assert transport.is_reading()
                    await protocol.datagrams(3)
            assert [data for data, _ in protocol.received] == [b"first", b"second", b"third"]

        loop.run(main)

    def test_from_the_first_moment_on(self, loop: Loop) -> None:
        """A protocol may pause in connection_made(), before anything was read."""

        class Pausing(Recorder):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                transport.pause_reading()

        async def main() -> None:
            protocol = Pausing()
            async with endpoint(protocol) as (transport, address):
                with udp_socket("127.0.0.1") as sock:
                    sock.sendto(b"data", address)
                    await readable(transport)
                    assert protocol.received == []
                    transport.resume_reading()
                    await protocol.datagrams(1)

        loop.run(main)

    def test_a_closed_endpoint_stays_silent(self, loop: Loop) -> None:
        """Resuming after close() is no error, and reads nothing."""

        async def main() -> None:
            protocol = Recorder()
            async with endpoint(protocol) as (transport, _):
                transport.pause_reading()
                transport.close()
                transport.resume_reading()
                assert not transport.is_reading()

        loop.run(main)
