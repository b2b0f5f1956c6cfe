# SPDX-License-Identifier: MIT
"""What Python offers besides the endpoint, where the kernel is asked for the client.

The kernel answers from a table that the tests fill (tests/sockopt).
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import threading
from typing import Final

import pytest

import uoa
import uoa.socketserver
from tests.capability import need
from tests.senders import asks_for_options, udp_socket
from tests.sockopt.kernel_table import KernelTable
from tests.unit.endpoints import Loop, Recorder, receive

ALICE: Final = ("203.0.113.7", 5000)
TRUST: Final = "10.0.0.0/24,fd00::/64"
PEERS: Final = ["10.0.0.5", "fd00::5"]

pytestmark = pytest.mark.netns("10.0.0.5", "10.0.1.9", "fd00::5", "fd00:1::9")


def server_of(peer: str) -> str:
    """Return the server's address, in a peer's family."""
    return "fd00:1::9" if ":" in peer else "10.0.1.9"


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("peer", PEERS)
def test_wrapped_protocols_ask_the_kernel(kind: str, peer: str) -> None:
    """`auto` asks the kernel on a transport of the loop's own, whose pseudo-socket will do."""

    async def main() -> None:
        protocol = Recorder(answer=True)
        running = asyncio.get_running_loop()
        factory = uoa.wrap(lambda: protocol, trust=TRUST)
        transport, _ = await running.create_datagram_endpoint(factory, (server_of(peer), 0))
        address = transport.get_extra_info("sockname")
        with udp_socket(peer) as balancer:
            table.set(balancer.getsockname()[:2], address[:2], ALICE)
            balancer.sendto(b"data", address)
            [(data, addr)] = await protocol.datagrams(1)

            assert (data, addr, addr.client.source) == (b"data", ALICE, "sockopt")
            assert await receive(balancer) == b"data"
        transport.close()
        await protocol.until(lambda: "lost" in protocol.events)

    factory = None
    if kind == "uvloop":
        need("uvloop")
        factory = importlib.import_module("uvloop").new_event_loop
    with KernelTable() as table:
        Loop(factory).run(main)


def test_wrapping_is_refused_where_nobody_answers() -> None:
    """Without a kernel that answers wrap() says what was tried."""
    with pytest.raises(uoa.BackendError, match="nothing works with this socket"):
        uoa.wrap(asyncio.DatagramProtocol, trust=TRUST)


@pytest.mark.parametrize("peer", PEERS)
def test_sockets_ask_the_kernel(peer: str) -> None:
    """uoa.Socket tells the client that the kernel knows, and answers its balancer."""
    with KernelTable() as table, udp_socket(server_of(peer)) as plain, udp_socket(peer) as lb:
        resolver = uoa.Resolver(TRUST, "sockopt")
        with uoa.Socket.from_socket(plain, resolver=resolver) as sock:
            table.set(lb.getsockname()[:2], sock.getsockname()[:2], ALICE)
            lb.sendto(b"data", sock.getsockname())
            data, addr = sock.recvfrom(100)
            sock.sendto(data, tuple(addr))

            assert asks_for_options(sock) == (True, ":" in peer)  # one of them may be news
            assert (addr, addr.client.source) == (ALICE, "sockopt")
            assert lb.recv(100) == b"data"


def test_a_socket_is_refused_where_nobody_answers() -> None:
    """Without a kernel that answers bind() says so."""
    sock = uoa.Socket(socket.AF_INET, resolver=uoa.Resolver(TRUST, "sockopt"))
    with sock, pytest.raises(uoa.BackendError, match="nobody answers"):
        sock.bind(("10.0.1.9", 0))


def test_servers_ask_the_kernel() -> None:
    """Handlers of uoa.socketserver see the client that the kernel knows."""

    class Whoami(uoa.socketserver.DatagramHandler):
        def handle(self) -> None:
            line = f"{self.client.host} {self.client.source}"
            self.request[1].sendto(line.encode(), self.client_address)

    resolver = uoa.Resolver(TRUST, "sockopt")
    with (
        KernelTable() as table,
        uoa.socketserver.UDPServer(("10.0.1.9", 0), Whoami, resolver=resolver) as server,
        udp_socket("10.0.0.5") as balancer,
    ):
        table.set(balancer.getsockname(), server.socket.getsockname(), ALICE)
        balancer.sendto(b"", server.socket.getsockname())
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        thread.join()

        assert balancer.recv(100) == b"203.0.113.7 sockopt"
