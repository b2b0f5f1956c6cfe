# SPDX-License-Identifier: MIT
"""uoa.aioquic: claims on datagrams that prove nothing, and datagrams that are none."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch

from tests.frameworks.quic import address, ask, client, serving
from tests.frameworks.relay import Relay
from tests.senders import send_claim, udp_socket
from tests.unit.endpoints import ALICE, BOB, LARGEST, Loop
from uoa import wire

CAROL = ("198.51.100.9", 7000)

VIEWS = pytest.mark.parametrize("view", ["peer", "client"])


def is_short(datagram: bytes) -> bool:
    """Return whether it begins with a packet of the 1-RTT kind."""
    return datagram[0] & 0x80 == 0


def junk_for(relay: Relay) -> bytes:
    """Return what looks like a packet of the relay's client, down to the connection ID."""
    return relay.sent[-1][:9] + os.urandom(60)


def held_back(connection: QuicConnectionProtocol) -> bytes:
    """Return what a client would send now."""
    now = asyncio.get_running_loop().time()
    ((datagram, _),) = connection._quic.datagrams_to_send(now=now)
    return datagram


def forged_initial(relay: Relay) -> bytes:
    """Return what anybody can make who has seen a client's first datagram: a newer Initial."""
    first = relay.sent[0]
    version, rest = int.from_bytes(first[1:5]), first[5:]
    to, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    crypto = CryptoPair()
    crypto.setup_initial(cid=to, is_client=True, version=version)
    builder = QuicPacketBuilder(
        host_cid=rest[1 : 1 + rest[0]],
        peer_cid=to,
        is_client=True,
        max_datagram_size=len(first),
        packet_number=100,
        version=version,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    builder.start_frame(QuicFrameType.PING)
    (datagram,), _ = builder.flush()
    return datagram.ljust(len(first), b"\0")


@VIEWS
@pytest.mark.parametrize("is_stray", [False, True], ids=["same-port", "other-port"])
@pytest.mark.parametrize("kind", ["junk", "replay"])
def test_the_client_stays(loop: Loop, view: str, is_stray: bool, kind: str) -> None:
    """Junk with a valid connection ID, and a packet that was there before, change nothing."""

    async def main() -> None:
        async with serving(view=view) as server:
            with Relay(server.address) as relay:
                relay.claim = ALICE
                async with client(relay.address) as connection:
                    await ask(connection)
                    (made,) = server.connections
                    (peer,) = relay.peers()
                    for _ in range(3):
                        await connection.ping()  # no stream's data may come twice
                        datagram = relay.sent[-1] if kind == "replay" else junk_for(relay)
                        assert is_short(datagram)
                        relay.inject(datagram, CAROL, is_stray=is_stray)
                        assert await ask(connection) == b"hello"
                        assert address(made.client) == ALICE
                        assert made.peer == peer
                    # It did reach the connection, where the latest datagram would be believed.
                    assert CAROL in made.senders
        assert server.changes() == []
        assert {event.client for event in server.events} == {ALICE}

    loop.run(main)


@VIEWS
def test_an_initial_proves_nothing(loop: Loop, view: str) -> None:
    """During the handshake a forged Initial from the balancer's port names nobody else."""

    class Forging(Relay):
        """Puts the forged one behind the client's first."""

        def _forward(self, front: Any) -> None:
            super()._forward(front)
            if len(self.sent) == 1:
                self.inject(forged_initial(self), CAROL)

    async def main() -> None:
        async with serving(view=view) as server:
            with Forging(server.address) as relay:
                relay.claim = ALICE
                async with client(relay.address) as connection:
                    assert await ask(connection) == b"hello"
                (made,) = server.connections
                spaces: Any = made._quic._spaces
                assert CAROL in made.senders
                assert spaces[Epoch.INITIAL].largest_received_packet == 100
        assert server.changes() == []
        assert {event.client for event in server.events} == {ALICE}

    loop.run(main)


@VIEWS
def test_an_old_datagram_comes_late(loop: Loop, view: str) -> None:
    """Its data is taken, but not its claim: newer packets have told who the client is."""

    async def main() -> None:
        async with serving(view=view) as server:
            with Relay(server.address) as relay:
                relay.claim = ALICE
                async with client(relay.address) as connection:
                    await ask(connection)
                    reader, writer = await connection.create_stream()
                    writer.write(b"late")
                    writer.write_eof()
                    late = held_back(connection)
                    connection._quic.send_ping(1)
                    relay.inject(held_back(connection), ALICE)
                    relay.inject(late, BOB)
                    assert await reader.read() == b"late"
        assert server.changes() == []
        (event,) = (event for event in server.told("data") if event.data == b"late")
        assert event.client == ALICE
        assert event.current == BOB

    loop.run(main)


def test_strangers_are_not_believed(loop: Loop) -> None:
    """A forged header in front of a good datagram is counted, and gets no answer."""

    async def main() -> None:
        async with serving() as server:
            with Relay(server.address) as relay, udp_socket("127.0.0.2") as stranger:
                async with client(relay.address) as connection:
                    await ask(connection)
                    before = server.resolver.stats()
                    send_claim(stranger, server.address, CAROL, relay.sent[0], "ppv2")
                    assert await ask(connection) == b"hello"
                    after = server.resolver.stats()
                    assert after["untrusted"] == before["untrusted"] + 1
                    assert after["flows"] == before["flows"]
                    assert len(server.connections) == 1
                    stranger.setblocking(False)
                    with pytest.raises(BlockingIOError):
                        stranger.recv(100)

    loop.run(main)


@VIEWS
def test_malformed_datagrams(loop: Loop, view: str) -> None:
    """Cut, empty, headers only, as long as possible: nothing raises, and serving goes on."""

    async def main() -> None:
        async with serving(view=view) as server:
            with (
                Relay(server.address) as relay,
                udp_socket("127.0.0.1") as balancer,
                udp_socket("127.0.0.2") as stranger,
            ):
                relay.claim = ALICE
                header = wire.build("ppv2", CAROL)
                async with client(relay.address) as connection:
                    await ask(connection)
                    good = [relay.sent[0], relay.sent[-1]]
                    datagrams = [b"", b"\0" * LARGEST, os.urandom(LARGEST)]
                    for datagram in good:
                        datagrams += [datagram[:size] for size in range(1, 40)]
                    # The beginning of a connection that cannot be, and what does not follow it.
                    unknown = os.urandom(8)
                    opening = good[0][:6] + unknown + good[0][14:]
                    datagrams += [opening, b"\x40" + unknown + bytes(40), b"\xe0" + opening[1:]]
                    for datagram in datagrams:
                        balancer.sendto(datagram, server.address)
                        stranger.sendto(datagram, server.address)
                        balancer.sendto((header + datagram)[:LARGEST], server.address)
                        assert await ask(connection) == b"hello"
                    for size in range(len(header) + 1):
                        balancer.sendto(header[:size], server.address)
                        stranger.sendto(header[:size], server.address)
                    assert await ask(connection) == b"hello"
                    assert server.resolver.stats()["empty"] >= 3
        assert server.changes() == []

    loop.run(main)
