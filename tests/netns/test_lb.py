# SPDX-License-Identifier: MIT
"""`uoa lb`: what it tells the server, and that replies find their way back."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.capability import need
from tests.senders import udp_socket
from uoa import wire
from uoa.cli import lb

_IP_RECVOPTS = 6
_IPV6_RECVDSTOPTS, _IPV6_DSTOPTS = 58, 59
_ETH_P_ALL, _PACKET_HOST = 3, 0  # linux/if_ether.h, linux/if_packet.h

_CLIENTS = {4: "203.0.113.77", 6: "2001:db8:c::77"}
_VIPS = {4: "198.51.100.10", 6: "2001:db8:f::10"}
_SOURCES = {4: "10.0.0.5", 6: "2001:db8:a::5"}
_SERVERS = {4: "10.0.1.9", 6: "2001:db8:b::9"}
_NET = pytest.mark.netns(
    *_CLIENTS.values(), *_VIPS.values(), *_SOURCES.values(), *_SERVERS.values()
)
_FAMILIES = pytest.mark.parametrize(
    ("outer", "family"), [(4, 4), (6, 6), (6, 4), (4, 6)], ids=["4to4", "6to6", "nat46", "nat64"]
)


def _text_of(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def _balancer(
    to: tuple[str, int], *arguments: str, vip: str = "127.0.0.1"
) -> Iterator[tuple[str, int]]:
    """Run `uoa lb` in front of `to`; yield where it listens."""
    command = [
        sys.executable, "-m", "uoa", "lb", "--listen", _text_of(vip, 0),
        "--to", _text_of(*to), *arguments,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split()[1].rpartition(":")[2]
        try:
            yield vip, int(port)
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


@pytest.mark.netns("198.51.100.10", "198.51.100.11", "2001:db8:f::10", "2001:db8:f::11")
@pytest.mark.parametrize("listen", ["0.0.0.0", "::"])
def test_every_address_answers_for_itself(listen: str) -> None:
    """Bound to all addresses, it answers from the one that was asked, and names it as the VIP."""
    vips = ["2001:db8:f::10", "2001:db8:f::11"]
    if listen == "0.0.0.0":
        vips = ["198.51.100.10", "198.51.100.11"]
    with (
        udp_socket(vips[0]) as server,
        _balancer(server.getsockname()[:2], "--dialect", "ppv2", vip=listen) as (_, port),
    ):
        for vip in vips:
            with udp_socket(vips[0]) as client:
                client.connect((vip, port))
                client.send(b"question")
                data, peer = server.recvfrom(1000)
                own = client.getsockname()[:2]
                assert data == wire.build("ppv2", own, vip=(vip, port)) + b"question"
                server.sendto(b"answer", peer)
                assert client.recv(100) == b"answer"


def _protocol(packet: bytes) -> int:
    return packet[9] if packet[0] >> 4 == 4 else packet[6]


def _hand_on(packet: bytes) -> None:
    """Be the receiver of opp: give its kernel the packet without the header."""
    decoded = wire.decode(packet)
    assert decoded.stripped is not None
    assert decoded.outer_dst is not None
    inet = socket.AF_INET6 if ":" in decoded.outer_dst else socket.AF_INET
    with socket.socket(inet, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(decoded.stripped, (decoded.outer_dst, 0))


class TestOpp:
    """Packets of protocol 248 as a packet socket sees them; nothing strips them here."""

    @contextmanager
    def _flow(
        self, outer: int, family: int, *arguments: str
    ) -> Iterator[tuple[socket.socket, socket.socket, tuple[str, int], Iterator[bytes]]]:
        """Yield a server, a client, what it sends to, and the packets that the server gets."""
        with (
            udp_socket(_SERVERS[outer]) as server,
            udp_socket(_CLIENTS[family]) as client,
            socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)
            ) as capture,
            _balancer(
                server.getsockname()[:2], "--dialect", "opp", "--source", _SOURCES[outer],
                *arguments, vip=_VIPS[family],
            ) as vip,
        ):  # fmt: skip
            capture.settimeout(10)
            yield server, client, vip, self._arriving(capture, _SERVERS[outer])

    @staticmethod
    def _arriving(capture: socket.socket, host: str) -> Iterator[bytes]:
        while True:
            packet, (_, _, kind, *_) = capture.recvfrom(65536)
            if kind == _PACKET_HOST and wire.decode(packet).outer_dst == host:
                yield packet

    @_NET
    @_FAMILIES
    @pytest.mark.parametrize(("trail", "telling"), [(None, 3), ("1", 1), ("0", 5)])
    def test_opp_is_on_the_first_datagrams(
        self, outer: int, family: int, trail: str | None, telling: int
    ) -> None:
        """They carry the header and the flow's addresses and ports, later ones are plain UDP."""
        arguments = () if trail is None else ("--trail", trail)
        with self._flow(outer, family, *arguments) as (server, client, vip, arriving):
            for number in range(5):
                client.sendto(b"%d" % number, vip)
            packets = [next(arriving) for _ in range(5)]
            table = Path("/proc/self/net", "raw" if outer == 4 else "raw6").read_text("ascii")
            name, to = client.getsockname()[:2], server.getsockname()[:2]

        header, begin = wire.build("opp", name), 20 if outer == 4 else 40
        decoded = [wire.decode(packet) for packet in packets]
        assert [_protocol(packet) for packet in packets] == [248] * telling + [17] * (5 - telling)
        for number in range(telling):
            assert packets[number][begin:].startswith(header)
            assert (decoded[number].dialect, decoded[number].client) == ("opp", name)
        assert [one.payload for one in decoded] == [b"0", b"1", b"2", b"3", b"4"]
        assert {(one.outer_dst, one.outer_dport) for one in decoded} == {to}
        ((source, port),) = {(one.outer_src, one.outer_sport) for one in decoded}
        assert source == _SOURCES[outer]
        assert port != name[1]
        assert len(table.splitlines()) - 1 == (telling == 5), "a raw socket outlives its use"

    @_NET
    @_FAMILIES
    def test_what_is_left_is_a_datagram_of_the_flow(self, outer: int, family: int) -> None:
        """Without the header it passes the kernel's checksum test, and its sender gets replies."""
        with self._flow(outer, family) as (server, client, vip, arriving):
            client.sendto(b"question", vip)
            _hand_on(next(arriving))
            data, peer = server.recvfrom(100)
            server.sendto(b"answer", peer)
            reply, sender = client.recvfrom(100)

        assert data == b"question"
        assert (reply, sender[:2]) == (b"answer", vip)

    @_NET
    def test_what_does_not_fit_is_lost(self) -> None:
        """An IPv6 client's longest datagram fits no IPv4 packet; the next one arrives."""
        with self._flow(4, 6) as (_, client, vip, arriving):
            client.sendto(bytes(65527), vip)
            client.sendto(b"next", vip)

            assert wire.decode(next(arriving)).payload == b"next"


@_NET
@pytest.mark.parametrize(("dialect", "what"), [("ipo", "IP options"), ("opp", "protocol 248")])
@pytest.mark.parametrize("outer", [4, 6])
def test_a_missing_capability_is_named(dialect: str, what: str, outer: int) -> None:
    """Before it says that it is ready, the balancer ends with what is missing and the ways out."""
    to = _text_of(_SERVERS[outer], 9)
    command = [sys.executable, "-m", "uoa", "lb", "--listen", ":0", "--to", to]
    done = subprocess.run(
        ["setpriv", "--bounding-set=-net_raw", *command, "--dialect", dialect],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"uoa: lb: dialect {dialect!r}: sending {what} needs CAP_NET_RAW: run as root, or inside "
        "`unshare -Urn`, or use --dialect ppv2\n"
    )


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
