# SPDX-License-Identifier: MIT
"""uoa.aioquic: whose connection it is, in handlers of every kind, and what is refused."""

from __future__ import annotations

import asyncio
import functools
import logging
import subprocess
import sys
from typing import Any

import aioquic.asyncio.server
import pytest
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.events import QuicEvent, StreamDataReceived

import uoa
import uoa.aioquic
from tests.capability import need
from tests.frameworks.quic import (
    TRUST,
    Recorder,
    address,
    ask,
    client,
    server_configuration,
    serving,
)
from tests.frameworks.relay import Relay
from tests.senders import Address, udp_socket
from tests.sockopt.kernel_table import KernelTable
from tests.unit.endpoints import ALICE, BOB, Loop

VIEWS = pytest.mark.parametrize("view", ["peer", "client"])


def initial_of(relay: Relay) -> bytes:
    """Return the first datagram of the relay's first client."""
    return relay.sent[0]


class TestClient:
    """Who the client is."""

    @VIEWS
    @pytest.mark.parametrize("claim", [ALICE, BOB], ids=["ipv4", "ipv6"])
    @pytest.mark.parametrize("dialect", ["ppv2", "ipo"])
    @pytest.mark.parametrize(
        ("host", "to"),
        [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("::", "::1"),
            ("::", "127.0.0.1"),  # dual stack: the peer is a mapped address
        ],
    )
    def test_a_connection_knows_its_client(
        self, loop: Loop, host: str, to: str, dialect: str, claim: Address, view: str
    ) -> None:
        """From the handshake on, it has the client and the peer; answers go through the peer."""
        if dialect == "ipo":
            need("raw")

        async def main() -> None:
            resolver = uoa.Resolver(TRUST, dialects=dialect)
            async with serving(host, resolver=resolver, view=view) as server:
                with Relay((to, server.address[1]), dialect) as relay:
                    relay.claim = claim
                    async with client(relay.address) as connection:
                        assert await ask(connection, b"question") == b"question"
                    assert [event.what for event in server.events] == ["handshake", "data"]
                    assert {event.client for event in server.events} == {claim}
                    assert {event.current for event in server.events} == {claim}
                    (made,) = server.connections
                    assert made.client is not None
                    assert made.client.source == ("proxy" if dialect == "ppv2" else "cmsg")
                    assert [made.peer] == relay.peers()
                    assert made.client_address is not None
                    host_seen, port_seen, *_ = made.client_address
                    visible = host_seen.removeprefix("::ffff:"), port_seen
                    assert visible == (claim if view == "client" else made.peer)
            assert uoa.current() is None

        loop.run(main)

    @pytest.mark.netns
    def test_the_kernel_may_know_the_client(self, loop: Loop) -> None:
        """With the backend sockopt a client is unknown until the kernel's table has it."""

        async def main() -> None:
            with KernelTable() as table:
                resolver = uoa.Resolver(TRUST, "sockopt")
                async with serving(resolver=resolver) as server:
                    with Relay(server.address, None) as relay:
                        async with client(relay.address) as connection:
                            await ask(connection)
                            (made,) = server.connections
                            assert made.client is not None
                            assert made.client.source == "none"
                            (peer,) = relay.peers()
                            table.set(peer, server.address, ALICE)
                            while not made.client.resolved:
                                await ask(connection)
                            assert address(made.client) == ALICE
                            assert made.client.source == "sockopt"
                            assert server.changes() == [(peer, ALICE)]

        loop.run(main)

    def test_without_a_balancer_the_peer_is_the_client(self, loop: Loop) -> None:
        """Who connects from outside of trust is a direct client."""

        async def main() -> None:
            resolver = uoa.Resolver("10.0.0.1", dialects="ppv2")
            async with (
                serving(resolver=resolver) as server,
                client(server.address) as connection,
            ):
                await ask(connection)
                (made,) = server.connections
                assert made.client is not None
                assert made.client.direct
                assert address(made.client) == made.peer

        loop.run(main)

    def test_two_clients_are_not_mixed_up(self, loop: Loop) -> None:
        """Interleaved, each connection keeps its client, and each datagram its own."""

        async def main() -> None:
            async with serving() as server:
                with Relay(server.address) as relay:
                    async with client(relay.address) as one, client(relay.address) as two:
                        for _ in range(100):
                            await asyncio.gather(ask(one, b"one"), ask(two, b"two"))
                        assert relay.peers() == [made.peer for made in server.connections]
            clients = [address(made.client) for made in server.connections]
            assert len(set(clients)) == 2
            for word, name in zip((b"one", b"two"), clients, strict=True):
                events = [event for event in server.told("data") if event.data == word]
                assert len(events) == 100
                assert {event.client for event in events} == {name}
                assert {event.current for event in events} == {name}
            assert server.changes() == []

        loop.run(main)

    @VIEWS
    def test_retry(self, loop: Loop, view: str) -> None:
        """With retry=True the client has to come back with a token, and is known all the same."""

        async def main() -> None:
            async with serving(view=view, retry=True) as server:
                with Relay(server.address) as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        assert await ask(connection) == b"hello"
                        (made,) = server.connections
                        assert address(made.client) == ALICE
                        assert [made.peer] == relay.peers()
                        assert made._quic._retry_source_connection_id is not None

        loop.run(main)


class TestUnknown:
    """Trusted peers that name nobody; see `missing`."""

    def test_the_peer_is_named_and_called_unknown(self, loop: Loop) -> None:
        """With "peer", the default, the connection has a client that is not resolved."""

        async def main() -> None:
            async with serving() as server, client(server.address) as connection:
                assert await ask(connection) == b"hello"
                (made,) = server.connections
                assert made.client is not None
                assert made.client.source == "none"
                assert not made.client.resolved
                assert address(made.client) == made.peer

        loop.run(main)

    @pytest.mark.parametrize("missing", ["drop", "raise"])
    def test_they_get_no_connection(
        self, loop: Loop, missing: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Their datagrams are dropped and counted; "raise" says so, once."""

        async def main() -> None:
            resolver = uoa.Resolver(TRUST, dialects="ppv2", missing=missing)
            async with serving(resolver=resolver) as server:
                with Relay(server.address) as relay, udp_socket("127.0.0.1") as balancer:
                    async with client(relay.address) as connection:
                        await ask(connection)
                        for _ in range(2):
                            balancer.sendto(initial_of(relay), server.address)
                        assert await ask(connection) == b"hello"
                        assert len(server.connections) == 1
                        assert server.resolver.stats()["dropped"] == 2

        with caplog.at_level(logging.WARNING, "uoa"):
            loop.run(main)
        said = [record.getMessage() for record in caplog.records if "dropped" in record.message]
        assert len(said) == (missing == "raise")
        for text in said:
            assert text.startswith("aioquic: client of a datagram from 127.0.0.1 port ")


class TestHandlers:
    """real_client and current() in what aioquic calls."""

    def test_events(self, loop: Loop) -> None:
        """quic_event_received() may have a parameter `client`."""
        seen: list[Address | None] = []

        class App(uoa.aioquic.RealClientMixin, QuicConnectionProtocol):
            @uoa.real_client
            def quic_event_received(self, event: QuicEvent, client: uoa.Client) -> None:
                assert client is self.client
                seen.append(address(client))
                if isinstance(event, StreamDataReceived):
                    self._quic.send_stream_data(event.stream_id, event.data, event.end_stream)

        async def main() -> None:
            async with serving(create_protocol=App) as server:
                with Relay(server.address) as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        assert await ask(connection) == b"hello"
            assert set(seen) == {ALICE}

        loop.run(main)

    def test_stream_handlers(self, loop: Loop) -> None:
        """A coroutine that serves a stream has the client of its datagram, and its connection."""
        seen: list[tuple[Address | None, ...]] = []
        tasks = set()

        @uoa.real_client
        async def echo(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: uoa.Client
        ) -> None:
            transport: Any = writer.transport  # aioquic's
            writer.write(await reader.read())
            writer.write_eof()
            connection = transport.protocol
            seen.append((address(client), address(uoa.current()), address(connection.client)))

        def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.ensure_future(echo(reader, writer)))

        class App(uoa.aioquic.RealClientMixin, QuicConnectionProtocol):
            pass

        async def main() -> None:
            async with serving(create_protocol=App, stream_handler=on_stream) as server:
                with Relay(server.address) as relay:
                    async with client(relay.address) as connection:
                        for claim in (ALICE, BOB):
                            relay.claim = claim
                            assert await ask(connection) == b"hello"
            assert seen == [(ALICE,) * 3, (BOB,) * 3]

        loop.run(main)

    @pytest.mark.parametrize("through", [None, "ppv2"], ids=["aioquic", "uoa"])
    def test_a_server_changes_in_one_line(self, loop: Loop, through: str | None) -> None:
        """A server written for aioquic runs as it is; only who opens it differs."""

        class EchoProtocol(QuicConnectionProtocol):
            def quic_event_received(self, event: QuicEvent) -> None:
                if isinstance(event, StreamDataReceived):
                    self._quic.send_stream_data(event.stream_id, event.data, event.end_stream)
                    self.transmit()

        async def main() -> None:
            resolver = uoa.Resolver(TRUST, dialects="ppv2")
            resolving: Any = functools.partial(uoa.aioquic.serve, resolver=resolver)
            serve = aioquic.asyncio.server.serve if through is None else resolving
            server: Any = await serve(
                "127.0.0.1",
                0,
                configuration=server_configuration(),
                create_protocol=EchoProtocol,
            )
            at = server._transport.get_extra_info("sockname")
            with Relay(at, through) as relay:
                async with client(relay.address) as connection:
                    assert await ask(connection) == b"hello"
            server.close()
            assert isinstance(server, QuicServer)

        loop.run(main)


class TestRefusals:
    """What cannot work says so, with the way out."""

    def test_another_server(self, loop: Loop) -> None:
        """On aioquic's own server the mixin refuses, and names serve()."""

        async def main() -> None:
            server: Any = await aioquic.asyncio.server.serve(
                "127.0.0.1",
                0,
                configuration=server_configuration(),
                create_protocol=functools.partial(Recorder, told),
            )
            at = server._transport.get_extra_info("sockname")
            async with serving() as other:
                with Relay(other.address) as relay, udp_socket("127.0.0.1") as sock:
                    async with client(relay.address) as connection:
                        await ask(connection)
                        sock.sendto(initial_of(relay), at)
                        while not loop.complaints:
                            await ask(connection)
            server.close()

        told: Any = type("", (), {"connections": []})
        loop.run(main)
        error = loop.complaints.pop()["exception"]
        assert isinstance(error, uoa.ConfigurationError)
        assert str(error) == (
            "Recorder: RealClientMixin is on a transport that knows no clients: open the server "
            "with uoa.aioquic.serve()"
        )

    def test_another_release(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A release of aioquic without what the mixin reads is refused when a class is made."""
        monkeypatch.delattr(QuicConnectionProtocol, "_process_events")
        uoa.aioquic._check_release.cache_clear()
        with pytest.raises(uoa.BackendError, match=r"aioquic 1\..*'_process_events'.*uoa\[quic\]"):
            type("App", (uoa.aioquic.RealClientMixin, QuicConnectionProtocol), {})

    def test_without_aioquic(self) -> None:
        """Without aioquic the module says what to install."""
        script = "import sys; sys.modules['aioquic'] = None; import uoa.aioquic"
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

        assert result.returncode == 1
        assert result.stderr.endswith(
            'ImportError: uoa.aioquic: aioquic is not installed: pip install "uoa[quic]"\n'
        )

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"view": "both"}, "view: 'both'"),
            ({"trust": "nonsense"}, "nonsense"),
            ({"trust": TRUST, "resolver": uoa.Resolver(TRUST)}, "give one of the two"),
        ],
    )
    def test_arguments(self, loop: Loop, arguments: dict[str, Any], words: str) -> None:
        """A wrong argument is named before anything is opened."""

        async def main() -> None:
            with pytest.raises(uoa.ConfigurationError, match=words):
                await uoa.aioquic.serve(
                    "127.0.0.1", 0, configuration=server_configuration(), **arguments
                )

        loop.run(main)
