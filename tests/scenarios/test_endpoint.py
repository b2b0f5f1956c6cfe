# SPDX-License-Identifier: MIT
"""An endpoint on a real link, where the kernel does what it never does on loopback.

    ┌──────────── one namespace ────────────┐
    │ server ── here ═══ veth ═══ there      │  10.1.0.1/24 and fe80::1 are on `here`
    └────────────────────────────────────────┘  nobody is behind `there` but the test

The interfaces vanish with the namespace.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import pytest

import uoa
import uoa.asyncio
from tests.capability import need
from tests.senders import option_of, send_claim

PATIENCE: Final = 30  # seconds, for what takes milliseconds
CLIENT: Final = ("2001:db8::7", 5000)

ETH_P_IPV6: Final = 0x86DD
MAC: Final = {"here": "02:00:00:00:00:01", "there": "02:00:00:00:00:02"}

pytestmark = pytest.mark.netns


def make_link() -> None:
    """Make the drawing above."""
    need("ip")
    for line in (
        f"link add here address {MAC['here']} type veth peer there address {MAC['there']}",
        "link set here up",
        "link set there up",
        "address add 10.1.0.1/24 dev here",
        "address add fe80::1/64 dev here nodad",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    wait_up("here", "there")


def wait_up(*names: str) -> None:
    """Wait until the kernel sends on these links: it drops frames until it has seen a carrier."""
    deadline = time.monotonic() + PATIENCE
    for name in names:
        while (
            "state UP"
            not in subprocess.run(
                ["ip", "-oneline", "link", "show", name], check=True, capture_output=True, text=True
            ).stdout
        ):
            assert time.monotonic() < deadline, f"{name} does not come up"
            select.select([], [], [], 0.01)


class Recorder(asyncio.DatagramProtocol):
    """Remembers what happens, and can be waited for."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, Any]] = []
        self.events: list[str] = []
        self.transport: Any = None
        self._changed = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        """Take the transport."""
        self.transport = transport

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something has happened that makes the condition true."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Remember a datagram."""
        self.received.append((data, addr))
        self._changed.set()

    def pause_writing(self) -> None:
        """Remember."""
        self.events.append("pause")

    def resume_writing(self) -> None:
        """Remember."""
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember the end."""
        self.events.append("lost")
        self._changed.set()


async def open_endpoint(**arguments: Any) -> tuple[Any, Recorder]:
    """Return the transport and the protocol of an endpoint."""
    transport, protocol = await uoa.asyncio.create_datagram_endpoint(Recorder, **arguments)
    assert isinstance(protocol, Recorder)
    return transport, protocol


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine, with patience."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await main()

    asyncio.run(bounded())


def checksum(data: bytes) -> int:
    """Return the Internet checksum."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def send_frame(source: str, to: str, port: int, payload: bytes, header: bytes = b"") -> None:
    """Let an IPv6 datagram with any source, and a Destination Options header, come in at `here`."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to)
    udp = struct.pack("!HHHH", 4000, port, 8 + len(payload), 0) + payload
    check = checksum(addresses + struct.pack("!II", len(udp), socket.IPPROTO_UDP) + udp)
    body = header + udp[:6] + struct.pack("!H", check) + udp[8:]
    first = socket.IPPROTO_DSTOPTS if header else socket.IPPROTO_UDP
    packet = struct.pack("!IHBB", 6 << 28, len(body), first, 64) + addresses + body
    macs = bytes.fromhex((MAC["here"] + MAC["there"]).replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind(("there", ETH_P_IPV6))
        link.send(macs + struct.pack("!H", ETH_P_IPV6) + packet)


def test_a_datagram_from_the_unspecified_address_is_one_like_others() -> None:
    """A neighbour that sends from :: stops nothing: its datagram and all others are delivered."""

    async def main() -> None:
        transport, protocol = await open_endpoint(local_addr=("::", 0), trust="fe80::/10")
        port = transport.get_extra_info("sockname")[1]
        for source, payload in (("fe80::5", b"one"), ("::", b"two"), ("fe80::5", b"three")):
            send_frame(source, "fe80::1", port, payload)
        await protocol.until(lambda: len(protocol.received) == 3)
        transport.close()

        assert [data for data, _ in protocol.received] == [b"one", b"two", b"three"]
        assert protocol.received[1][1] == ("::", 4000)
        assert protocol.received[1][1].client.direct

    make_link()
    run(main)


@pytest.mark.parametrize("view", ["client", "peer"])
def test_link_local_balancers_are_answered_on_their_link(view: str) -> None:
    """The reply to a link-local balancer finds its interface, from either view."""

    async def main() -> None:
        transport, protocol = await open_endpoint(
            local_addr=("::", 0), trust="fe80::/10", view=view
        )
        port = transport.get_extra_info("sockname")[1]
        index = socket.if_nametoindex("here")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as balancer:
            balancer.setblocking(False)
            balancer.bind(("fe80::1", 0, 0, index))
            send_claim(balancer, ("fe80::1", port, 0, index), CLIENT, b"question")
            await protocol.until(lambda: protocol.received)
            [(_, addr)] = protocol.received
            peer = balancer.getsockname()

            assert addr == (CLIENT if view == "client" else peer)
            assert addr.peer == (f"fe80::1%{index}", peer[1])
            assert addr.client.local == (f"fe80::1%{index}", port)
            transport.sendto(b"answer", addr)
            answer = await asyncio.get_running_loop().sock_recvfrom(balancer, 100)
            assert answer == (b"answer", ("fe80::1", port, 0, index))
        transport.close()

    make_link()
    run(main)


@pytest.mark.parametrize("view", ["client", "peer"])
def test_sockets_answer_link_local_balancers_on_their_link(view: Literal["client", "peer"]) -> None:
    """uoa.Socket finds the interface too, also for a tuple that has lost its peer."""
    make_link()
    index = socket.if_nametoindex("here")
    with (
        uoa.Socket(socket.AF_INET6, trust="fe80::/10", view=view) as sock,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as balancer,
    ):
        sock.bind(("::", 0))
        port = sock.getsockname()[1]
        for one in (sock, balancer):
            one.settimeout(PATIENCE)
        balancer.bind(("fe80::1", 0, 0, index))
        peer = balancer.getsockname()
        send_claim(balancer, ("fe80::1", port, 0, index), CLIENT, b"question")
        _, addr = sock.recvfrom(100)

        assert addr == (CLIENT if view == "client" else peer)
        assert addr.peer == (f"fe80::1%{index}", peer[1])
        for to in (addr, tuple(addr)):
            sock.sendto(b"answer", to)
            assert balancer.recvfrom(100) == (b"answer", ("fe80::1", port, 0, index))


@pytest.mark.parametrize("view", ["client", "peer"])
def test_wrapped_protocols_answer_link_local_balancers(view: Literal["client", "peer"]) -> None:
    """On a transport of the loop's own the interface is found as well."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        index = socket.if_nametoindex("here")
        resolver = uoa.Resolver("fe80::/10", dialects="ppv2")
        protocol = Recorder()
        factory = uoa.wrap(lambda: protocol, resolver=resolver, view=view)
        transport, _ = await loop.create_datagram_endpoint(factory, ("fe80::1%here", 0))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as balancer:
            balancer.setblocking(False)
            balancer.bind(("fe80::1", 0, 0, index))
            server, peer = transport.get_extra_info("sockname"), balancer.getsockname()
            send_claim(balancer, server, CLIENT, b"question", "ppv2")
            await protocol.until(lambda: protocol.received)
            [(_, addr)] = protocol.received

            assert addr == (CLIENT if view == "client" else peer)
            assert addr.peer == (f"fe80::1%{index}", peer[1])
            for to in (addr, tuple(addr)):
                protocol.transport.sendto(b"answer", to)
                assert await loop.sock_recvfrom(balancer, 100) == (b"answer", server)
        transport.close()
        await protocol.until(lambda: "lost" in protocol.events)

    make_link()
    run(main)


def test_an_option_from_the_link_names_the_client() -> None:
    """A packet that no socket of this machine made is read like any other."""

    async def main() -> None:
        transport, protocol = await open_endpoint(local_addr=("::", 0), trust="fe80::/10")
        port = transport.get_extra_info("sockname")[1]
        send_frame("fe80::5", "fe80::1", port, b"data", option_of(CLIENT, ("fe80::1", port)))
        await protocol.until(lambda: protocol.received)
        transport.close()

        assert protocol.received == [(b"data", CLIENT)]

    make_link()
    run(main)


@pytest.mark.parametrize("count", [20, 64, 200])
def test_a_full_socket_gets_rid_of_everything_in_order(count: int) -> None:
    """What a real socket takes no more waits, also over close(), and leaves in order.

    Packets to a neighbour whose hardware address nobody knows wait in the
    kernel, and fill the socket's small buffer, until the address is told.
    """

    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
            sock.bind(("10.1.0.1", 0))
            transport, protocol = await open_endpoint(sock=sock, trust=[])
            transport.set_write_buffer_limits(high=1000, low=0)
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
                link.setblocking(False)
                link.bind(("there", 0x0800))
                for number in range(count):
                    transport.sendto(b"%100d" % number, ("10.1.0.2", 9))
                transport.close()
                for _ in range(10):
                    await asyncio.sleep(0)
                assert "lost" not in protocol.events

                command = f"neighbour replace 10.1.0.2 lladdr {MAC['there']} dev here"
                subprocess.run(["ip", *command.split()], check=True)
                loop = asyncio.get_running_loop()
                arrived = [int((await loop.sock_recv(link, 2000))[-100:]) for _ in range(count)]
                await protocol.until(lambda: "lost" in protocol.events)

            assert arrived == list(range(count))
            assert protocol.events == (["pause", "resume", "lost"] if count > 64 else ["lost"])

    make_link()
    run(main)
