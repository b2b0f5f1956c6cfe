# SPDX-License-Identifier: MIT
"""uoa.aioquic: what becomes of a connection whose balancer or client moves."""

from __future__ import annotations

import asyncio
import functools
import os
from typing import Any

import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch

import uoa
from tests.capability import need
from tests.frameworks.quic import TRUST, Recorder, address, ask, client, serving
from tests.frameworks.relay import Relay
from tests.senders import udp_socket
from tests.unit.endpoints import ALICE, BOB, Loop

VIEWS = pytest.mark.parametrize("view", ["peer", "client"])


def probe_of(connection: QuicConnectionProtocol) -> bytes:
    """Return a probing packet, with which a client tries another path before it takes it."""
    quic: Any = connection._quic
    builder = QuicPacketBuilder(
        host_cid=quic.host_cid,
        peer_cid=quic._peer_cid.cid,
        is_client=True,
        max_datagram_size=1200,
        packet_number=quic._packet_number,
        version=quic._version,
    )
    builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[Epoch.ONE_RTT])
    builder.start_frame(QuicFrameType.PATH_CHALLENGE).push_bytes(os.urandom(8))
    (datagram,), _ = builder.flush()
    quic._packet_number = builder.packet_number
    return datagram


class TestMoves:
    """What happens to a connection whose addresses change."""

    @VIEWS
    def test_the_balancer_moves(self, loop: Loop, view: str) -> None:
        """Its old port closed, the stream goes on, through the new one; the client is the same."""

        async def main() -> None:
            async with serving(view=view) as server:
                with Relay(server.address) as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        reader, writer = await connection.create_stream()
                        for number in range(5):
                            writer.write(b"%d" % number)
                            assert await reader.read(1) == b"%d" % number
                            (made,) = server.connections
                            assert [made.peer] == relay.peers()
                            assert address(made.client) == ALICE
                            relay.move()
                        writer.write_eof()
            assert server.changes() == []
            assert {event.client for event in server.events} == {ALICE}
            paths: Any = made._quic._network_paths
            if view == "client":
                assert len(paths) == 1

        loop.run(main)

    @VIEWS
    @pytest.mark.parametrize("moves", [False, True], ids=["same-port", "other-port"])
    def test_the_client_moves(self, loop: Loop, view: str, moves: bool) -> None:
        """client_changed() comes once, before the events of the datagram, and once on return."""

        async def main() -> None:
            async with serving(view=view) as server:
                with Relay(server.address) as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        await ask(connection)
                        server.events.clear()
                        for claim in (BOB, BOB, ALICE):
                            relay.claim = claim
                            if moves:
                                relay.move()
                            assert await ask(connection) == b"hello"
                            (made,) = server.connections
                            assert [made.peer] == relay.peers()
            assert [(event.what, event.client) for event in server.events] == [
                ("changed", BOB),
                ("data", BOB),
                ("data", BOB),
                ("changed", ALICE),
                ("data", ALICE),
            ]
            assert server.changes() == [(ALICE, BOB), (BOB, ALICE)]

        loop.run(main)

    @VIEWS
    def test_a_client_that_takes_another_socket(self, loop: Loop, view: str) -> None:
        """A real client's real migration gives it another flow of the balancer, and is told."""

        async def main() -> None:
            async with serving(view=view) as server:
                with Relay(server.address) as relay:
                    async with client(relay.address) as connection:
                        assert await ask(connection) == b"hello"
                        sock = udp_socket("::")
                        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                            lambda: connection, sock=sock
                        )
                        assert await ask(connection) == b"hello"
                        (made,) = server.connections
                        name = "127.0.0.1", transport.get_extra_info("sockname")[1]
                        assert address(made.client) == name
                        assert made.peer == relay.peers()[1]
                        assert [new for _, new in server.changes()] == [name]
                    transport.close()

        loop.run(main)

    @VIEWS
    def test_a_client_that_only_tries_another_path(self, loop: Loop, view: str) -> None:
        """A probing packet is authentic and newest, but does not make its path the active one."""

        async def main() -> None:
            async with serving(view=view) as server:
                with Relay(server.address) as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        await ask(connection)
                        (made,) = server.connections
                        before = made._quic._spaces[Epoch.ONE_RTT].largest_received_packet
                        relay.inject(probe_of(connection), BOB, is_stray=True)
                        assert await ask(connection) == b"hello"
                        assert made._quic._spaces[Epoch.ONE_RTT].largest_received_packet > before
                        assert len(made._quic._network_paths) == 2
                        assert BOB in made.senders
                        assert address(made.client) == ALICE
                        assert [made.peer] == relay.peers()
            assert server.changes() == []

        loop.run(main)

    def test_a_path_that_is_given_up(self, loop: Loop) -> None:
        """A path that is never validated ends by a timer, and the client is the former again."""
        if not hasattr(QuicConnection, "_abandon_path_validation"):
            pytest.skip("this release of aioquic never gives a path up")

        async def main() -> None:
            async with serving() as server:
                with Relay(server.address) as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        await ask(connection)
                        relay.claim, relay.is_answering = BOB, False
                        relay.move()
                        waiting = asyncio.ensure_future(ask(connection))
                        await server.until(lambda: server.changes())
                        relay.is_forwarding = False
                        await server.until(lambda: len(server.changes()) == 2)
                        assert server.changes() == [(ALICE, BOB), (BOB, ALICE)]
                        relay.is_answering = relay.is_forwarding = True
                        assert await waiting == b"hello"
                        assert address(server.connections[0].client) == BOB

        loop.run(main)

    def test_a_pinned_flow_never_moves(self, loop: Loop) -> None:
        """With policy="pin" a flow's first client stays, whatever its port is used for later."""
        need("raw")

        async def main() -> None:
            resolver = uoa.Resolver(TRUST, policy="pin")
            async with serving(resolver=resolver) as server:
                with Relay(server.address, "ipo") as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        await ask(connection)
                        relay.claim = BOB
                        assert await ask(connection) == b"hello"
                        assert address(server.connections[0].client) == ALICE
            assert server.changes() == []
            assert resolver.stats()["changed"] >= 1

        loop.run(main)


class MovingOnce(Relay):
    """Moves when the server has answered for the first time."""

    _has_moved = False

    def _answer(self, *arguments: Any) -> None:
        super()._answer(*arguments)
        if not self._has_moved:
            self._has_moved = True
            self.move()


class TestRetry:
    """The balancer moves between a Retry and the datagram that brings its token."""

    def test_it_survives_in_the_client_view(self, loop: Loop) -> None:
        """There a token is the client's: it is good through another port."""

        async def main() -> None:
            async with serving(view="client", retry=True) as server:
                with MovingOnce(server.address) as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        assert await ask(connection) == b"hello"
                        (made,) = server.connections
                        assert address(made.client) == ALICE
                        assert [made.peer] == relay.peers()

        loop.run(main)

    def test_it_is_void_in_the_peer_view(self, loop: Loop) -> None:
        """There a token is the balancer's port's; a client whose port stays is not affected."""

        async def main() -> None:
            async with serving(view="peer", retry=True) as server:
                with MovingOnce(server.address) as relay:
                    async with client(relay.address, wait_connected=False) as hopeless:
                        hopeless.transmit()
                        await asyncio.to_thread(relay.until, lambda: len(relay.sent) >= 2)
                        async with client(relay.address) as connection:
                            assert await ask(connection) == b"hello"
                    (made,) = server.connections
                    assert made.peer == relay.peers()[1]

        loop.run(main)


class TestHook:
    """What client_changed() may do."""

    def test_it_may_close(self, loop: Loop) -> None:
        """A connection that is closed there ends for the client, with the reason."""
        ends: list[QuicEvent] = []

        class Strict(Recorder):
            def client_changed(self, old: uoa.Client, new: uoa.Client) -> None:
                super().client_changed(old, new)
                self.close(error_code=1, reason_phrase="moved")

        class Watching(QuicConnectionProtocol):
            def quic_event_received(self, event: QuicEvent) -> None:
                if isinstance(event, ConnectionTerminated):
                    ends.append(event)
                super().quic_event_received(event)

        async def main() -> None:
            async with serving() as server:
                make = functools.partial(Strict, server)
                async with serving(create_protocol=make) as strict:
                    with Relay(strict.address) as relay:
                        relay.claim = ALICE
                        async with client(relay.address, create_protocol=Watching) as connection:
                            await ask(connection)
                            relay.claim = BOB
                            await ask(connection)
                            await connection.wait_closed()
                assert server.changes() == [(ALICE, BOB)]
            (end,) = ends
            assert isinstance(end, ConnectionTerminated)
            assert (end.error_code, end.reason_phrase) == (1, "moved")

        loop.run(main)

    def test_it_may_raise(self, loop: Loop) -> None:
        """The event loop's exception handler is told, and the connection goes on."""

        class Failing(Recorder):
            def client_changed(self, old: uoa.Client, new: uoa.Client) -> None:
                super().client_changed(old, new)
                raise RuntimeError("no")

        async def main() -> None:
            async with serving() as server:
                make = functools.partial(Failing, server)
                async with serving(create_protocol=make) as failing:
                    with Relay(failing.address) as relay:
                        relay.claim = ALICE
                        async with client(relay.address) as connection:
                            await ask(connection)
                            for claim in (BOB, ALICE):
                                relay.claim = claim
                                assert await ask(connection) == b"hello"
                assert len(server.changes()) == 2

        loop.run(main)
        assert [str(context["exception"]) for context in loop.complaints] == ["no", "no"]
        assert loop.complaints[0]["message"] == "Exception in client_changed()"
        loop.complaints.clear()
