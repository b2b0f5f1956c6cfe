# SPDX-License-Identifier: MIT
"""`uoa.wrap()`: protocols that see the client on transports of the loops' own."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import pytest

import uoa
import uoa.asyncio
import uoa.testing
from tests.senders import send_claim, udp_socket
from tests.unit.endpoints import (
    ALICE,
    BOB,
    TRUST,
    Loop,
    Recorder,
    endpoint,
    receive,
)
from uoa import wire

# The server of the documentation of asyncio's protocols, as it stands there, with
# the port and the hour replaced.
ECHO_OF_ASYNCIO: Final = """
import asyncio


class EchoServerProtocol:
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        message = data.decode()
        print('Received %r from %s' % (message, addr))
        print('Send %r to %s' % (message, addr))
        self.transport.sendto(data, addr)


async def main():
    print("Starting UDP server")

    # Get a reference to the event loop as we plan to use
    # low-level APIs.
    loop = asyncio.get_running_loop()

    # One protocol instance will be created to serve all
    # client requests.
    transport, protocol = await loop.create_datagram_endpoint(
        EchoServerProtocol,
        local_addr=('127.0.0.1', PORT))

    try:
        await asyncio.sleep(3600)  # Serve for 1 hour.
    finally:
        transport.close()


asyncio.run(main())
"""


def headers(**arguments: Any) -> uoa.Resolver:
    """Return a resolver for PROXY headers."""
    return uoa.Resolver(TRUST, dialects="ppv2", **arguments)


@asynccontextmanager
async def wrapped(
    protocol: Recorder,
    host: str = "127.0.0.1",
    remote: Any = None,
    resolver: uoa.Resolver | None = None,
    view: Any = "client",
) -> AsyncIterator[Any]:
    """Open an endpoint of the loop's own with a wrapped protocol; give its address."""
    loop = asyncio.get_running_loop()
    factory = uoa.wrap(lambda: protocol, resolver=resolver or headers(), view=view)
    transport, _ = await loop.create_datagram_endpoint(factory, (host, 0), remote)
    try:
        yield transport.get_extra_info("sockname")
    finally:
        transport.close()
        await protocol.until(lambda: "lost" in protocol.events)


class TestResolving:
    """Who datagrams are from, and where answers go."""

    @pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "::"])
    @pytest.mark.parametrize("client", [ALICE, BOB])
    def test_the_client_is_read_and_the_balancer_answered(
        self, loop: Loop, bound: str, client: Any
    ) -> None:
        """A protocol reads the client; what it answers reaches the balancer's socket."""

        async def main() -> None:
            protocol = Recorder(answer=True)
            host = "127.0.0.1" if bound == "::" else bound
            async with wrapped(protocol, bound) as address:
                with udp_socket(host) as balancer:
                    send_claim(balancer, (host, address[1]), client, b"data", "ppv2")
                    [(data, addr)] = await protocol.datagrams(1)

                    assert (data, addr) == (b"data", client)
                    assert addr.peer == balancer.getsockname()[:2]
                    assert addr.client.source == "proxy"
                    assert await receive(balancer) == b"data"

        loop.run(main)

    def test_the_peer_view_reads_as_the_socket_saw_it(self, loop: Loop) -> None:
        """With view="peer" addresses have the form of the loop's own, answers too."""

        async def main() -> None:
            for bound, form in (
                ("127.0.0.1", lambda port: ("127.0.0.1", port)),
                ("::1", lambda port: ("::1", port, 0, 0)),
            ):
                protocol = Recorder()
                async with wrapped(protocol, bound, view="peer") as address:
                    with udp_socket(bound) as balancer:
                        send_claim(balancer, address, ALICE, b"data", "ppv2")
                        [(_, addr)] = await protocol.datagrams(1)

                        assert addr == form(balancer.getsockname()[1])
                        assert (addr.client.host, addr.client.port) == ALICE
                        for to in (addr, tuple(addr)):
                            protocol.transport.sendto(b"answer", to)
                            assert await receive(balancer) == b"answer"

        loop.run(main)

    def test_interleaved_clients_keep_their_contexts(self, loop: Loop) -> None:
        """Two clients in turn, 1,000 datagrams: each has its own current(), its tasks too."""

        async def main() -> None:
            seen: list[tuple[str, Any]] = []

            async def later(expected: Any) -> None:
                await asyncio.sleep(0)
                seen.append(("task", uoa.current() is expected))

            class Watcher(Recorder):
                def datagram_received(self, data: bytes, addr: Any) -> None:
                    seen.append(("handler", uoa.current() is addr.client))
                    tasks.append(asyncio.ensure_future(later(addr.client)))
                    asyncio.get_running_loop().call_soon(
                        lambda: seen.append(("timer", uoa.current() is addr.client))
                    )
                    super().datagram_received(data, addr)

                def error_received(self, exc: Exception) -> None:
                    seen.append(("error", uoa.current() is None))
                    super().error_received(exc)

            tasks: list[asyncio.Future[None]] = []
            protocol = Watcher(answer=True)
            async with wrapped(protocol, resolver=headers(missing="raise")) as address:
                with udp_socket("127.0.0.1") as one, udp_socket("127.0.0.1") as other:
                    for number in range(500):
                        for balancer, client in ((one, ALICE), (other, BOB)):
                            send_claim(balancer, address, client, b"%d" % number, "ppv2")
                            balancer.sendto(b"unknown", address)
                            assert await receive(balancer) == b"%d" % number
                    await asyncio.gather(*tasks)
                    await protocol.until(lambda: len(protocol.errors) == 1000)
                    peers = (one.getsockname(), other.getsockname())

            assert [addr for _, addr in protocol.received] == [ALICE, BOB] * 500
            assert [addr.peer for _, addr in protocol.received] == [*peers] * 500
            assert all(is_right for _, is_right in seen)
            for place in ("handler", "task", "timer", "error"):
                assert [name for name, _ in seen].count(place) == 1000
            assert uoa.current() is None

        loop.run(main)

    def test_replies_follow_a_balancer_that_moves(self, loop: Loop) -> None:
        """When the balancer changes its port, answers to kept addresses go to the new one."""

        async def main() -> None:
            protocol = Recorder()
            async with wrapped(protocol) as address:
                for number in range(3):
                    with udp_socket("127.0.0.1") as balancer:
                        send_claim(balancer, address, ALICE, b"", "ppv2")
                        await protocol.datagrams(number + 1)
                        protocol.transport.sendto(b"answer", protocol.received[0][1])
                        assert await receive(balancer) == b"answer"

        loop.run(main)

    def test_rebuilt_addresses_find_the_way(self, loop: Loop) -> None:
        """Plain, sliced, copied and pickled addresses are answered as the original."""

        async def main() -> None:
            protocol = Recorder()
            async with wrapped(protocol) as address:
                with udp_socket("127.0.0.1") as balancer:
                    send_claim(balancer, address, ALICE, b"", "ppv2")
                    [(_, addr)] = await protocol.datagrams(1)
                    for twin in (
                        (addr[0], addr[1]),
                        addr[:2],
                        copy.deepcopy([addr])[0],
                        pickle.loads(pickle.dumps(addr)),
                    ):
                        protocol.transport.sendto(b"answer", twin)
                        assert await receive(balancer) == b"answer"
                with udp_socket("127.0.0.1") as other:
                    protocol.transport.sendto(b"hello", other.getsockname())
                    assert await receive(other) == b"hello"

        loop.run(main)

    def test_strangers_are_themselves(self, loop: Loop) -> None:
        """An untrusted sender's header stays payload; it is counted, and fills no table."""

        async def main() -> None:
            protocol = Recorder(answer=True)
            resolver = uoa.Resolver([], dialects="ppv2")
            async with wrapped(protocol, resolver=resolver) as address:
                with udp_socket("127.0.0.1") as stranger:
                    sent = wire.build("ppv2", ALICE) + b"data"
                    stranger.sendto(sent, address)

                    assert await protocol.datagrams(1) == [(sent, stranger.getsockname())]
                    assert await receive(stranger) == sent
                    assert resolver.stats()["untrusted"] == 1
                    assert resolver.stats()["flows"] == 0
                    with udp_socket("127.0.0.1") as elsewhere:
                        protocol.transport.sendto(b"hello", elsewhere.getsockname())
                        assert await receive(elsewhere) == b"hello"

        loop.run(main)

    @pytest.mark.parametrize("missing", ["peer", "drop", "raise"])
    def test_missing_does_what_it_says(self, loop: Loop, missing: Any) -> None:
        """An unknown client's datagram is delivered, dropped, or reported."""

        async def main() -> None:
            protocol = Recorder()
            resolver = headers(missing=missing)
            async with wrapped(protocol, resolver=resolver) as address:
                with udp_socket("127.0.0.1") as balancer:
                    balancer.sendto(b"unknown", address)
                    send_claim(balancer, address, ALICE, b"data", "ppv2")
                    await protocol.until(lambda: (b"data", ALICE) in protocol.received)
                    peer = balancer.getsockname()

            unknown = [(b"unknown", peer)] if missing == "peer" else []
            assert protocol.received == [*unknown, (b"data", ALICE)]
            assert resolver.stats()["dropped"] == (missing != "peer")
            assert [type(error) for error in protocol.errors] == [uoa.UnknownClientError] * (
                missing == "raise"
            )

        loop.run(main)

    def test_odd_datagrams_are_datagrams(self, loop: Loop) -> None:
        """Empty, header-only, cut and large datagrams are delivered, and nothing is raised."""

        async def main() -> None:
            protocol = Recorder()
            header = wire.build("ppv2", ALICE)
            sent = [b"", header, header[:-1], header + bytes(60000)]
            async with wrapped(protocol) as address:
                with udp_socket("127.0.0.1") as balancer:
                    for count, data in enumerate(sent):
                        balancer.sendto(data, address)
                        await protocol.datagrams(count + 1)

            assert [data for data, _ in protocol.received] == [b"", b"", header[:-1], bytes(60000)]

        loop.run(main)

    def test_spp_answers_carry_the_header(self, loop: Loop) -> None:
        """Replies to a balancer that speaks SPP have its header, on a connected socket too."""

        async def main() -> None:
            header = wire.build("spp", ALICE, vip=("198.51.100.1", 53))
            with udp_socket("127.0.0.1") as balancer:
                for remote in (None, balancer.getsockname()):
                    protocol = Recorder()
                    resolver = uoa.Resolver(TRUST, dialects="spp")
                    async with wrapped(protocol, remote=remote, resolver=resolver) as address:
                        if remote:
                            protocol.transport.sendto(b"hello")
                            assert await receive(balancer) == b"hello"
                        balancer.sendto(header + b"data", address)
                        [(data, addr)] = await protocol.datagrams(1)
                        assert (data, addr) == (b"data", ALICE)
                        protocol.transport.sendto(bytearray(b"answer"), None if remote else addr)
                        assert await receive(balancer) == header + b"answer"

        loop.run(main)


class TestTransport:
    """What the protocol gets to hold."""

    def test_it_is_a_transport_like_any(self, loop: Loop) -> None:
        """The protocol's transport is a DatagramTransport; the loop's own does the work."""

        async def main() -> None:
            protocol, resolver = Recorder(), headers()
            async with wrapped(protocol, resolver=resolver) as address:
                assert isinstance(protocol.transport, asyncio.DatagramTransport)
                transport: Any = protocol.transport
                assert transport.get_extra_info("uoa.resolver") is resolver
                assert transport.get_extra_info("sockname") == address
                assert transport.get_extra_info("socket").fileno() > 0
                assert transport.get_extra_info("nothing", 5) == 5
                assert transport.get_write_buffer_size() == 0
                assert transport.get_protocol() is protocol
                assert not transport.is_closing()
                other = Recorder()
                transport.set_protocol(other)
                with udp_socket("127.0.0.1") as balancer:
                    send_claim(balancer, address, ALICE, b"data", "ppv2")
                    assert await other.datagrams(1) == [(b"data", ALICE)]
                transport.set_protocol(protocol)
                transport.close()
                assert transport.is_closing()

            assert protocol.events == ["made", "lost"]

        loop.run(main)

    def test_aborting_reaches_the_loops_transport(self, loop: Loop) -> None:
        """abort() ends the connection at once."""

        async def main() -> None:
            protocol = Recorder()
            async with wrapped(protocol):
                protocol.transport.abort()
                await protocol.until(lambda: "lost" in protocol.events)

        loop.run(main)

    def test_errors_and_pauses_pass_through(self) -> None:
        """What the loop reports of errors and full buffers reaches the protocol."""
        protocol = Recorder()
        shim = uoa.wrap(protocol, resolver=headers())
        error = ConnectionRefusedError()
        shim.error_received(error)
        shim.pause_writing()
        shim.resume_writing()

        assert protocol.errors == [error]
        assert protocol.events == ["error", "pause", "resume"]

    def test_a_network_error_is_reported(self, loop: Loop) -> None:
        """A refused datagram on a connected socket is an error for the protocol."""

        async def main() -> None:
            with udp_socket("127.0.0.1") as gone:
                remote = gone.getsockname()
            protocol = Recorder()
            async with wrapped(protocol, remote=remote):
                protocol.transport.sendto(b"anybody?")
                await protocol.until(lambda: protocol.errors)

            assert isinstance(protocol.errors[0], ConnectionRefusedError)

        loop.run(main)

    def test_a_closed_resolver_is_reported(self, loop: Loop) -> None:
        """Once the resolver is closed both directions report ClosedError, and nothing is raised."""

        async def main() -> None:
            protocol, resolver = Recorder(), headers()
            async with wrapped(protocol, resolver=resolver) as address:
                resolver.close()
                with udp_socket("127.0.0.1") as balancer:
                    send_claim(balancer, address, ALICE, b"data", "ppv2")
                    await protocol.until(lambda: protocol.errors)
                    protocol.transport.sendto(b"answer", balancer.getsockname())

            assert [type(error) for error in protocol.errors] == [uoa.ClosedError] * 2

        loop.run(main)


class TestWrapping:
    """What can be wrapped, and what is refused when."""

    def test_a_protocol_gives_a_protocol(self, loop: Loop) -> None:
        """A wrapped protocol is a protocol, and has what the inner one has."""

        async def main() -> None:
            inner = Recorder()
            shim = uoa.wrap(inner, resolver=headers())
            running = asyncio.get_running_loop()
            transport, got = await running.create_datagram_endpoint(lambda: shim, ("127.0.0.1", 0))

            assert got is shim
            assert isinstance(shim, asyncio.DatagramProtocol)
            assert cast(Any, shim).received is inner.received
            assert not hasattr(shim, "nothing")
            transport.close()
            await inner.until(lambda: "lost" in inner.events)

        loop.run(main)

    def test_a_class_is_a_factory(self) -> None:
        """A class gives a factory, each of whose protocols is new."""
        factory = uoa.wrap(asyncio.DatagramProtocol, resolver=headers())

        assert isinstance(factory(), asyncio.DatagramProtocol)
        assert factory() is not factory()

    def test_options_are_refused_at_once(self) -> None:
        """A backend that has to read the socket is refused by wrap() itself."""
        with pytest.raises(uoa.ConfigurationError, match="ancillary"):
            uoa.wrap(Recorder, resolver=uoa.Resolver(TRUST, backend="cmsg"))

    @pytest.mark.parametrize(
        "arguments",
        [{}, {"trust": "nonsense"}, {"trust": [], "view": "both"}, {"trust": [], "resolver": 1}],
    )
    def test_wrong_arguments_are_refused_at_once(
        self, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No trust, a bad one, a wrong view: wrap() says so."""
        monkeypatch.delenv("UOA_TRUST", raising=False)
        with pytest.raises(uoa.ConfigurationError):
            uoa.wrap(Recorder, **arguments)

    def test_nothing_is_done_twice(self, loop: Loop) -> None:
        """On an endpoint that resolves, addresses pass untouched and the transport is its own."""

        async def main() -> None:
            inner = Recorder(answer=True)
            shim: Any = uoa.wrap(inner, resolver=uoa.Resolver([], dialects="ppv2"))
            async with endpoint(shim) as (transport, address):
                with udp_socket("127.0.0.1") as balancer:
                    send_claim(balancer, address, ALICE, b"data", "ppv2")
                    [(_, addr)] = await inner.datagrams(1)

                    assert addr == ALICE
                    assert addr.client.resolved
                    assert inner.transport is transport
                    assert await receive(balancer) == b"data"

        loop.run(main)

    def test_the_documentations_echo_server_works(self) -> None:
        """asyncio's own example, with one line changed, prints clients and answers them."""
        with udp_socket("127.0.0.1") as free:
            port = free.getsockname()[1]
        source = ECHO_OF_ASYNCIO.replace("PORT", str(port)).replace(
            "        EchoServerProtocol,\n",
            "        __import__('uoa').wrap(EchoServerProtocol,"
            " resolver=__import__('uoa').Resolver(dialects='ppv2')),\n",
        )
        with subprocess.Popen(
            [sys.executable, "-uc", source],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "UOA_TRUST": "127.0.0.1"},
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "Starting UDP server\n"
                with uoa.testing.Balancer(("127.0.0.1", port)) as balancer:
                    answer = ask_until_bound(lambda: balancer.ask(b"hello", ALICE))
                assert answer == b"hello"
                assert process.stdout.readline() == f"Received 'hello' from {ALICE}\n"
            finally:
                process.terminate()


def ask_until_bound(ask: Callable[[], bytes]) -> bytes:
    """Ask again while nobody is bound to the port: the example tells too early that it is."""
    while True:
        try:
            return ask()
        except ConnectionRefusedError:
            continue
