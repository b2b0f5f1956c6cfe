# SPDX-License-Identifier: MIT
"""uoa.hypercorn.serve(): what it refuses, what it does to the loop, and that it leaves nothing."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from hypercorn.utils import LifespanFailureError

import uoa
import uoa.asyncio
import uoa.middleware
from tests.clock import Clock
from tests.frameworks.h3 import H3Config, Receive, Scope, Send, certificate, client, serving, tell
from tests.frameworks.relay import Relay
from tests.senders import udp_socket
from tests.unit.endpoints import ALICE, BOB, TRUST, Loop
from uoa import wire
from uoa._client import addr_from


def _is_hooked() -> bool:
    return "create_datagram_endpoint" in vars(asyncio.get_running_loop())


class TestRefusals:
    """What cannot work is told at the start, before the application runs."""

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"quic_bind": []}, r"config\.quic_bind: it is empty"),
            ({"certfile": None}, r"config\.certfile, config\.keyfile: not set"),
            ({"keyfile": None}, r"config\.certfile, config\.keyfile: not set"),
            ({"certfile": "/nowhere.pem"}, "nowhere.pem.*readable PEM file"),
            ({"keyfile": str(certificate())}, "needs a readable PEM file each"),
            ({"keyfile": str(certificate().with_name("locked.pem"))}, "without a password"),
        ],
    )
    def test_configurations(self, loop: Loop, changes: dict[str, Any], text: str) -> None:
        """A configuration that serves no QUIC, or fails later in silence, is refused."""
        config = H3Config()
        for name, value in changes.items():
            setattr(config, name, value)

        async def main() -> None:
            with pytest.raises(uoa.ConfigurationError, match=text):
                await uoa.hypercorn.serve(_never, config, trust=[])
            assert not _is_hooked()

        loop.run(main)
        assert config.addresses == []

    def test_resolvers(self, loop: Loop) -> None:
        """A backend that cannot work is refused, and the sockets are closed again."""
        config = H3Config()

        async def main() -> None:
            with pytest.raises(uoa.BackendError, match="nobody answers"):
                await uoa.hypercorn.serve(_never, config, resolver=uoa.Resolver([], "sockopt"))
            with pytest.raises(uoa.ConfigurationError, match="one of the two"):
                await uoa.hypercorn.serve(_never, config, trust=[], resolver=uoa.Resolver([]))
            assert not _is_hooked()
            with udp_socket(*config.addresses[0]):  # It is free again.
                pass

        loop.run(main)

    def test_a_unix_socket(self, loop: Loop, tmp_path: Any) -> None:
        """What is no UDP socket has no clients to be known."""
        config = H3Config()
        config.quic_bind = [f"unix:{tmp_path}/socket"]

        async def main() -> None:
            with pytest.raises(uoa.BackendError, match="neither AF_INET nor AF_INET6"):
                await uoa.hypercorn.serve(_never, config, trust=[])

        with pytest.warns(Warning, match="alt-svc"):
            loop.run(main)

    def test_trio(self) -> None:
        """Where no loop of asyncio runs, as under trio, it says so."""
        serving = uoa.hypercorn.serve(_never, H3Config(), trust=[])

        with pytest.raises(uoa.ConfigurationError, match="trio worker is not supported"):
            serving.send(None)

    def test_a_loop_that_refuses(self) -> None:
        """A loop whose method cannot be replaced gets an error that names it."""

        class Rigid(asyncio.SelectorEventLoop):
            def __setattr__(self, name: str, value: object) -> None:
                if name == "create_datagram_endpoint":
                    raise AttributeError("read-only")
                super().__setattr__(name, value)

        async def main() -> None:
            with pytest.raises(uoa.BackendError, match="Rigid does not let its create_datagram"):
                await uoa.hypercorn.serve(_never, H3Config(), trust=[])

        Loop(Rigid).run(main)


_RAN: list[Scope] = []


@pytest.fixture(autouse=True)
def _never_ran() -> Iterator[None]:
    """Fail a test whose server called an application that must not run."""
    _RAN.clear()
    yield
    assert _RAN == []


async def _never(scope: Scope, receive: Receive, send: Send) -> None:
    _RAN.append(scope)


class TestHook:
    """create_datagram_endpoint() of the one loop, for a moment."""

    def test_it_is_gone_when_all_is_served(self, loop: Loop) -> None:
        """Once the sockets are open the loop is as it was; the configuration always is."""
        config = H3Config()

        async def main() -> None:
            async with serving(tell, config):
                assert not _is_hooked()
            assert not _is_hooked()

        loop.run(main)
        assert "create_sockets" not in vars(config)
        assert len(config.addresses) == 1

    def test_it_is_gone_when_starting_fails(self, loop: Loop) -> None:
        """An application that fails to start takes hook and sockets along."""
        config = H3Config()
        hooked = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            hooked.append(_is_hooked())
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        async def main() -> None:
            with pytest.raises(LifespanFailureError, match="no database"):
                async with serving(app, config):
                    pass
            assert not _is_hooked()
            with udp_socket(*config.addresses[0]):
                pass

        loop.run(main)
        assert hooked == [True]

    def test_what_others_put_there_stays(self, loop: Loop) -> None:
        """A loop that was changed before is left as it was found, and is used for the rest."""

        async def main() -> None:
            running: Any = asyncio.get_running_loop()
            original, calls = running.create_datagram_endpoint, []

            async def counting(*arguments: Any, **keywords: Any) -> Any:
                calls.append(keywords)
                return await original(*arguments, **keywords)

            running.create_datagram_endpoint = counting
            async with serving(uoa.middleware.QuicAdapter(tell)) as at:
                assert running.create_datagram_endpoint is counting
                assert calls == []
                async with client(at):
                    assert len(calls) == 1

        loop.run(main)

    def test_others_open_endpoints_meanwhile(self, loop: Loop) -> None:
        """While a server starts, an endpoint of somebody else on that loop is the loop's own."""

        async def main() -> None:
            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                if scope["type"] == "lifespan":
                    assert _is_hooked()
                    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                        asyncio.DatagramProtocol, ("127.0.0.1", 0)
                    )
                    opened.append(transport.get_extra_info("uoa.resolver"))
                    transport.close()
                await tell(scope, receive, send)

            opened: list[Any] = []
            async with serving(app):
                pass
            assert opened == [None]

        loop.run(main)

    def test_two_servers_on_one_loop(self, loop: Loop) -> None:
        """Two that start at the same time each get their own sockets and resolver."""

        async def main() -> None:
            resolvers = [uoa.Resolver(TRUST, dialects="ppv2") for _ in range(2)]
            apps = [uoa.middleware.QuicAdapter(tell) for _ in range(2)]
            servers = [serving(app, resolver=r) for app, r in zip(apps, resolvers, strict=True)]
            addresses = await asyncio.gather(*(server.__aenter__() for server in servers))
            assert not _is_hooked()
            for at, claim in zip(addresses, (ALICE, BOB), strict=True):
                with Relay(at) as relay:
                    relay.claim = claim
                    async with client(relay.address) as connection:
                        assert (await connection.request()).json["client"] == [*claim]
            await asyncio.gather(*(server.__aexit__(None, None, None) for server in servers))
            assert all(resolver.stats()["resolved"] for resolver in resolvers)

        loop.run(main)


def test_several_sockets(loop: Loop) -> None:
    """All QUIC sockets of a configuration are served, of both families."""
    config = H3Config()
    config.quic_bind = ["127.0.0.1:0", "[::1]:0", "127.0.0.2:0"]

    async def main() -> None:
        async with serving(uoa.middleware.QuicAdapter(tell), config):
            for at in config.addresses:
                with Relay(at) as relay:
                    relay.claim = ALICE
                    async with client(relay.address) as connection:
                        assert (await connection.request()).json["client"] == [*ALICE]

    loop.run(main)
    assert len(config.addresses) == 3


def test_tcp_is_left_alone(loop: Loop) -> None:
    """A TCP listener beside it shows its peer as ever, and no resolver is asked about it."""
    config = H3Config()
    config.bind = ["127.0.0.1:0"]

    async def main() -> None:
        resolver = uoa.Resolver(TRUST, dialects="ppv2")
        app = uoa.middleware.QuicAdapter(tell, resolver)
        async with serving(app, config, resolver=resolver) as at:
            with Relay(at) as relay:
                relay.claim = ALICE
                async with client(relay.address) as connection:
                    answer = await connection.request()
                    assert answer.json["client"] == [*ALICE]
                    assert any(name == b"alt-svc" for name, _ in answer.headers)
                [peer] = relay.peers()
                context = ssl._create_unverified_context()
                # From the same port as the balancer's UDP flow.
                reader, writer = await asyncio.open_connection(
                    *config.tcp_addresses[0], ssl=context, local_addr=peer
                )
                writer.write(b"GET / HTTP/1.1\r\nHost: uoa.test\r\nConnection: close\r\n\r\n")
                told = json.loads((await reader.read()).split(b"\r\n")[-4])
                writer.close()
                await writer.wait_closed()
        assert told["version"] == "1.1"
        assert (told["client"], told["extension"]) == ([*peer], None)

    loop.run(main)


def test_a_move_within_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new port's first datagram that comes together with the old one's last is a move."""
    clock = Clock()
    clock.patch(monkeypatch)
    resolver = uoa.Resolver(TRUST, dialects="ppv2")
    old, new, local = ("127.0.0.1", 4000), ("127.0.0.1", 4001), ("127.0.0.1", 443)

    def heard(peer: tuple[str, int]) -> uoa.Addr:
        header = wire.build("ppv2", ALICE)
        return addr_from(resolver.resolve(peer, header, local=local)[0], "client", False)

    kept = heard(old)
    clock.now += 1
    heard(old)
    heard(new)

    assert resolver.route(kept, local).peer == new
    clock.now += 1
    heard(old)
    assert resolver.route(kept, local).peer == old


def test_a_socket_is_closed_at_the_end(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end the endpoint is closed and the port free; the caller's resolver is still open."""
    config = H3Config()
    create, transports = uoa.asyncio.create_datagram_endpoint, list[Any]()

    async def remembering(*arguments: Any, **keywords: Any) -> Any:
        transport, protocol = await create(*arguments, **keywords)
        transports.append(transport)
        return transport, protocol

    monkeypatch.setattr(uoa.hypercorn, "create_datagram_endpoint", remembering)

    async def main() -> None:
        resolver = uoa.Resolver([])
        async with serving(tell, config, resolver=resolver) as at:
            with pytest.raises(OSError, match="in use"), udp_socket(*at):
                pass
        with udp_socket(*at):
            pass
        assert [transport.is_closing() for transport in transports] == [True]
        assert resolver.stats()["flows"] == 0

    loop.run(main)


def test_a_release_without_the_queue_is_refused(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hypercorn whose UDP server takes its datagrams elsewhere is refused, not served silence."""

    class Other(asyncio.DatagramProtocol):
        def __init__(self, *_: object) -> None: ...

    monkeypatch.setattr("hypercorn.asyncio.run.UDPServer", Other)

    async def main() -> None:
        with pytest.raises(uoa.BackendError, match="no protocol_queue here"):
            async with serving(tell, H3Config(), resolver=uoa.Resolver([])):
                pass

    loop.run(main)
