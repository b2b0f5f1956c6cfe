# SPDX-License-Identifier: MIT
"""`uoa.testing`: what users' own tests need."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import uoa
import uoa.testing
from tests.senders import udp_socket
from tests.unit.endpoints import ALICE, BOB, HOSTS, TRUST


@contextmanager
def echo(host: str) -> Iterator[tuple[Any, list[Any]]]:
    """Serve echoes on a thread; give the address, and the list of senders."""
    seen: list[Any] = []
    resolver = uoa.Resolver(TRUST, dialects="ppv2")
    with uoa.Socket.from_socket(udp_socket(host), resolver=resolver) as server:

        def serve() -> None:
            while True:
                data, addr = server.recvfrom(65535)
                if data == b"stop":
                    return
                seen.append(addr)
                server.sendto(data, addr)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname(), seen
        finally:
            with udp_socket("::1" if ":" in host else "127.0.0.1") as sock:
                sock.sendto(b"stop", (sock.getsockname()[0], server.getsockname()[1]))
            thread.join()


class TestClients:
    """Clients and addresses out of nothing."""

    def test_a_client_is_what_a_resolver_makes(self) -> None:
        """The facts of a made-up client agree with each other."""
        client = uoa.testing.client()

        assert (client.host, client.port) == ("203.0.113.7", 5555)
        assert client.resolved
        assert (client.source, client.dialect) == ("proxy", "ppv2")
        assert uoa.testing.client(source="cmsg").dialect == "ipo"

    def test_a_direct_client_is_its_peer(self) -> None:
        """Where nothing is claimed both addresses are the same, and there is no dialect."""
        direct = uoa.testing.client("198.51.100.1", 7, source="direct")
        unknown = uoa.testing.client("198.51.100.1", 7, peer=("192.0.2.9", 9), source="none")

        assert direct.direct
        assert direct.peer == (direct.host, direct.port) == ("198.51.100.1", 7)
        assert (unknown.resolved, unknown.direct, unknown.dialect) == (False, False, None)
        assert (unknown.host, unknown.port) == unknown.peer == ("192.0.2.9", 9)

    def test_an_address_reads_by_its_view(self) -> None:
        """Made-up addresses are tuples of the same forms as real ones."""
        assert uoa.testing.addr("203.0.113.7", 1) == ("203.0.113.7", 1)
        assert uoa.testing.addr(peer=("192.0.2.9", 9), view="peer") == ("192.0.2.9", 9)
        assert uoa.testing.addr(peer=("2001:db8::1", 9), view="peer") == ("2001:db8::1", 9, 0, 0)
        assert uoa.testing.addr("203.0.113.7", peer=("192.0.2.9", 9)).peer == ("192.0.2.9", 9)


class TestBalancer:
    """A small balancer in front of a real server."""

    @pytest.mark.parametrize("host", [*HOSTS, "0.0.0.0", "::"])
    def test_the_server_sees_the_client(self, host: str) -> None:
        """The server sees the client that is named, whose answer comes back."""
        with echo(host) as (address, seen), uoa.testing.Balancer(address) as balancer:
            for client in (ALICE, BOB):
                assert balancer.ask(b"hello", client=client) == b"hello"

            assert seen == [ALICE, BOB]
            assert [addr.peer for addr in seen] == [balancer.peer(ALICE), balancer.peer(BOB)]
            assert balancer.peer(ALICE) != balancer.peer(BOB)

    def test_answers_from_elsewhere_are_none(self) -> None:
        """An answer that does not come from the server's address is not taken."""
        with (
            udp_socket("127.0.0.1") as server,
            udp_socket("127.0.0.1") as other,
            uoa.testing.Balancer(server.getsockname(), timeout=0.05) as balancer,
        ):
            balancer.send(b"hello")
            other.sendto(b"a lie", balancer.peer())

            with pytest.raises(TimeoutError):
                balancer.receive()

    def test_nobody_there_is_said(self) -> None:
        """Asking a port that nobody serves is refused at once."""
        with udp_socket("127.0.0.1") as server:
            address = server.getsockname()
        with uoa.testing.Balancer(address) as balancer, pytest.raises(ConnectionRefusedError):
            balancer.ask(b"hello")

    def test_closing_closes_its_sockets(self) -> None:
        """Leaving the block leaves no socket behind, and coming back means another port."""
        with udp_socket("127.0.0.1") as server:
            with uoa.testing.Balancer(server.getsockname()) as balancer:
                peer = balancer.peer()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(peer)
                with balancer:
                    assert balancer.peer() != peer
