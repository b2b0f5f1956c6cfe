# SPDX-License-Identifier: MIT
"""`uoa lb`: what it tells the server, and that replies find their way back."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.capability import need
from uoa import wire
from uoa.cli import lb

_IP_RECVOPTS = 6
_IPV6_RECVDSTOPTS, _IPV6_DSTOPTS = 58, 59


@contextmanager
def _balancer(to: tuple[str, int], *arguments: str) -> Iterator[tuple[str, int]]:
    """Run `uoa lb` in front of `to`; yield where it listens."""
    host = "[::1]" if ":" in to[0] else to[0]
    command = [
        sys.executable, "-m", "uoa", "lb", "--listen", "127.0.0.1:0",
        "--to", f"{host}:{to[1]}", *arguments,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split()[1].rpartition(":")[2]
        try:
            yield "127.0.0.1", int(port)
        finally:
            process.terminate()
    assert process.returncode == 0


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A plain socket that asks for IPv4 options."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVOPTS, 1)
        sock.settimeout(10)
        yield sock


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """A client on an address of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.33", 0))
        sock.settimeout(10)
        yield sock


def _options(ancillary: list[tuple[int, int, bytes]]) -> list[bytes]:
    return [data for level, kind, data in ancillary if (level, kind) == (0, _IP_RECVOPTS)]


@pytest.mark.parametrize("dialect", ["ipo", "bd31", "bd30", "bd29"])
def test_options_are_on_the_first_datagrams(
    dialect: str, server: socket.socket, client: socket.socket
) -> None:
    """The first three datagrams of a flow carry the option that the dialect defines."""
    need("raw")
    with _balancer(server.getsockname(), "--dialect", dialect) as vip:
        for number in range(5):
            client.sendto(b"%d" % number, vip)
            data, ancillary, _, _ = server.recvmsg(100, 256)
            assert data == b"%d" % number
            expected = wire.build(dialect, client.getsockname(), vip=vip)
            assert _options(ancillary) == ([expected] if number < 3 else [])


def test_ipv6_servers_get_a_destination_option(client: socket.socket) -> None:
    """An IPv6 server is told of its IPv4 client in a Destination Options header."""
    need("raw")
    need("ipv6")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind(("::1", 0))
        server.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVDSTOPTS, 1)
        server.settimeout(10)
        with _balancer(server.getsockname()[:2], "--trail", "1") as vip:
            client.sendto(b"x", vip)
            _, ancillary, _, _ = server.recvmsg(100, 256)

            expected = wire.build("ipo", client.getsockname(), outer=6)
            assert ancillary == [(socket.IPPROTO_IPV6, _IPV6_DSTOPTS, expected)]


@pytest.mark.parametrize("dialect", ["ppv2", "spp"])
def test_payload_headers(dialect: str, server: socket.socket, client: socket.socket) -> None:
    """ppv2 and spp stand in front of the payload; --trail 0 puts them on every datagram."""
    arguments = ("--dialect", dialect, "--trail", "0")
    with _balancer(server.getsockname(), *arguments) as vip:
        for number in range(5):
            client.sendto(b"%d" % number, vip)
            expected = wire.build(dialect, client.getsockname(), vip=vip)
            assert server.recv(100) == expected + b"%d" % number


def test_replies_go_to_the_client(server: socket.socket, client: socket.socket) -> None:
    """A reply to the balancer's address reaches the client, from the address it sent to."""
    need("raw")
    with _balancer(server.getsockname()) as vip:
        client.sendto(b"question", vip)
        _, peer = server.recvfrom(100)
        assert peer[0] != "127.0.0.33"
        server.sendto(b"answer", peer)
        assert client.recvfrom(100) == (b"answer", vip)


def test_spp_replies_need_their_header(server: socket.socket, client: socket.socket) -> None:
    """With spp a reply without the header of its flow is lost, one with it is stripped."""
    with _balancer(server.getsockname(), "--dialect", "spp") as vip:
        client.sendto(b"x", vip)
        data, peer = server.recvfrom(100)
        server.sendto(b"without", peer)
        server.sendto(data[:38] + b"with", peer)
        assert client.recv(100) == b"with"


def test_each_client_has_a_flow(server: socket.socket, client: socket.socket) -> None:
    """Two clients come from two ports, and each gets its own replies."""
    need("raw")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        _balancer(server.getsockname()) as vip,
    ):
        other.settimeout(10)
        for number, sock in enumerate((client, other, client, other)):
            sock.sendto(b"%d" % number, vip)
        peers = {}
        for _ in range(4):
            data, peer = server.recvfrom(100)
            peers[data] = peer
            server.sendto(data, peer)
        assert peers[b"0"] == peers[b"2"] != peers[b"1"] == peers[b"3"]
        assert {client.recv(100), client.recv(100)} == {b"0", b"2"}
        assert {other.recv(100), other.recv(100)} == {b"1", b"3"}


def test_flows_have_a_ceiling(
    server: socket.socket, client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its ceiling the balancer closes the flow that was used least recently."""
    monkeypatch.setattr(lb, "_MAX_FLOWS", 2)

    async def peers() -> list[object]:
        balancer = lb.Balancer(("127.0.0.1", 0), server.getsockname(), "ppv2")
        loop = asyncio.get_running_loop()
        seen: list[object] = []
        server.setblocking(False)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third,
        ):
            async with asyncio.timeout(10):
                for sock in (client, second, client, third, client, second):
                    sock.sendto(b"x", balancer.address)
                    seen.append((await loop.sock_recvfrom(server, 100))[1])
        balancer.close()
        return seen

    first, second, again, _, still, anew = asyncio.run(peers())
    assert first == again == still
    assert second != anew
