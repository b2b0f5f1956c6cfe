# SPDX-License-Identifier: MIT
"""How an endpoint opens and closes, on both event loops."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any, Final

import pytest

import uoa
import uoa.asyncio
from tests.capability import need
from tests.senders import asks_for_options, udp_socket
from tests.unit.endpoints import (
    HOSTS,
    TRUST,
    UDP_GRO,
    Loop,
    Recorder,
    endpoint,
    receive,
    receive_all,
)

IP_PKTINFO: Final = 8  # linux/in.h


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

    def test_any_object_with_the_methods_is_a_protocol(self, loop: Loop) -> None:
        """A protocol need not be of asyncio's class: its methods decide."""
        seen: list[bytes] = []

        class Plain:
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: Any) -> None:
                seen.append(data)
                self.transport.sendto(data, addr)

            def connection_lost(self, error: Exception | None) -> None:
                seen.append(b"lost")

        async def main() -> None:
            factory: Any = Plain
            transport, _ = await uoa.asyncio.create_datagram_endpoint(
                factory, ("127.0.0.1", 0), trust=TRUST
            )
            with udp_socket("127.0.0.1") as client:
                client.sendto(b"hello", transport.get_extra_info("sockname"))
                assert await receive(client) == b"hello"
            transport.close()
            await asyncio.sleep(0)

        loop.run(main)
        assert seen == [b"hello", b"lost"]

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

    @pytest.mark.parametrize("host", HOSTS)
    @pytest.mark.parametrize(("dialect", "asks"), [("ipo", True), ("ppv2", False), ("spp", False)])
    def test_options_are_asked_for_where_they_are_read(
        self, loop: Loop, host: str, dialect: str, asks: bool
    ) -> None:
        """The kernel hands over options to cmsg; headers in the payload do without."""

        async def main() -> None:
            resolver = uoa.Resolver(TRUST, dialects=dialect)
            async with endpoint(Recorder(), host, resolver=resolver) as (transport, _):
                sock = transport.get_extra_info("socket")
                assert asks_for_options(sock) == (asks, asks and ":" in host)

        loop.run(main)

    @pytest.mark.parametrize(("host", "asks"), [("127.0.0.1", 0), ("0.0.0.0", 1)])
    def test_only_a_wildcard_socket_has_to_ask_where_it_was_reached(
        self, loop: Loop, host: str, asks: int
    ) -> None:
        """A socket that is bound to one address knows it; packet info would cost time."""

        async def main() -> None:
            async with endpoint(Recorder(), host) as (transport, _):
                sock = transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_IP, IP_PKTINFO) == asks

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
