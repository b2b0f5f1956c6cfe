# SPDX-License-Identifier: MIT
"""What every backend must get right, over real sockets, for each pair of families.

All addresses are on the loopback interface of a fresh network namespace, which
the marker `netns` makes, and finds empty again at the end:

    client 1 ─┐   ┌─ balancer 1 ─┐  one socket for each client: its address and
              ├───┤              ├─ port are what the server's socket sees        ─► server
    client 2 ─┘   └─ balancer 2 ─┘                                                    ▲
    stranger ─────────────────────────────────────────────────────────────────────────┘

The sockets of a balancer are the tests' own, and they claim whatever a test
wants; where the kernel keeps the table (sockopt), a claim is entered there before
its datagram is sent. Which client the server sees is in its answers, which come back to the
socket that asked, or to nobody.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import pytest

import uoa
import uoa.asyncio
from tests.scenarios.hosts import ADDRESSES, BACKENDS, HOSTS, PAIRS, Backend, Hosts
from tests.senders import Address, send_claim, udp_socket
from tests.sockopt.kernel_table import KernelTable

PATIENCE: Final = 30  # seconds, for what takes milliseconds

Policy = Literal["replace", "pin"]


pytestmark = [
    pytest.mark.netns(*ADDRESSES),
    pytest.mark.parametrize("pair", PAIRS),
    pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS),
]


class Answer(NamedTuple):
    """What the server made of a datagram."""

    client: Address
    source: str
    payload: str


class Server(asyncio.DatagramProtocol):
    """Answers each datagram with who sent it, at the address that it was told last."""

    def __init__(self) -> None:
        self.rebuilds = False  # answer a plain tuple, as some frameworks do
        self.last: Any = None
        self.errors: list[Exception] = []
        self.has_error = asyncio.Event()
        self.lost = asyncio.Event()
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.DatagramTransport)
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer."""
        client = addr.client
        self.last = addr
        self.answer(data, tuple(addr) if self.rebuilds else addr, client)

    def answer(self, data: bytes, addr: Any, client: uoa.Client) -> None:
        """Send an answer to an address."""
        facts = f"{client.host} {client.port} {client.source} ".encode()
        self._transport.sendto(facts + data, addr)

    def error_received(self, exc: Exception) -> None:
        """Remember."""
        self.errors.append(exc)
        self.has_error.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that it is over."""
        self.lost.set()


@dataclass
class World:
    """A server, and what is around it."""

    inside: Hosts
    clients: tuple[Address, Address]
    backend: Backend
    table: KernelTable | None
    resolver: uoa.Resolver
    server: Server
    address: Address
    sockets: ExitStack = field(default_factory=ExitStack)

    def flow(self, balancer: int = 0, port: int = 0, host: str | None = None) -> socket.socket:
        """Return a socket of a balancer, or of another host, that hears the server only."""
        sock = self.sockets.enter_context(udp_socket(host or self.inside.balancers[balancer], port))
        sock.connect(self.address)
        sock.setblocking(False)
        return sock

    def send(self, sock: socket.socket, payload: str, claim: Address | None = None) -> None:
        """Send a datagram to the server that claims to be from `claim`, or claims nothing."""
        if claim is None:
            sock.send(payload.encode())
            return
        peer = sock.getsockname()[:2]
        if self.table is not None and peer[0] in self.inside.balancers:
            self.table.set(peer, self.address, claim)
        send_claim(sock, self.address, claim, payload.encode(), self.backend.dialect)

    async def answer(self, sock: socket.socket) -> Answer:
        """Wait for an answer at the socket that asked."""
        data = await asyncio.get_running_loop().sock_recv(sock, 65536)
        if self.backend.dialect == "spp" and data.startswith(b"\x56\xec"):
            data = data[38:]
        host, port, source, payload = data.decode(errors="replace").split(" ", 3)
        return Answer((host, int(port)), source, payload)

    async def ask(self, sock: socket.socket, claim: Address | None = None) -> Answer:
        """Send a datagram and wait for its answer."""
        self.send(sock, "data", claim)
        return await self.answer(sock)

    async def who(self, sock: socket.socket, claim: Address | None = None) -> Address | None:
        """Return the client that the server resolved, None if it did not."""
        answer = await self.ask(sock, claim)
        return None if answer.source in ("direct", "none") else answer.client


@asynccontextmanager
async def world(pair: str, backend: Backend, **arguments: Any) -> AsyncIterator[World]:
    """Start a server; close everything at the end."""
    outer, inner = (HOSTS[family] for family in PAIRS[pair])
    resolver = uoa.Resolver(
        inner.trust, backend.source, backend.dialect, once=backend.once, **arguments
    )
    one, other = outer.clients
    with ExitStack() as stack:
        table = stack.enter_context(KernelTable()) if backend.source == "sockopt" else None
        transport, server = await uoa.asyncio.create_datagram_endpoint(
            Server, (inner.server, 0), resolver=resolver
        )
        assert isinstance(server, Server)
        here = World(
            inner, ((one, 5001), (other, 5002)), backend, table, resolver, server,
            transport.get_extra_info("sockname")[:2],
        )  # fmt: skip
        try:
            with here.sockets:
                yield here
        finally:
            transport.close()
            await server.lost.wait()
            resolver.close()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine, with patience."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await main()

    asyncio.run(bounded())


def test_two_clients_never_mix(pair: str, backend: Backend) -> None:
    """Of two clients behind one balancer, 1,000 times in turn, each answer is right."""

    async def main() -> None:
        async with world(pair, backend) as here:
            flows = [here.flow(), here.flow()]
            for start in range(0, 1000, 10):
                # Ten of each are on their way at once, so that batches mix them.
                for turn in range(start, start + 10):
                    for number, (sock, client) in enumerate(zip(flows, here.clients, strict=True)):
                        claims = not backend.remembers or turn < 3
                        here.send(sock, f"{number} {turn}", client if claims else None)
                for turn in range(start, start + 10):
                    for number, (sock, client) in enumerate(zip(flows, here.clients, strict=True)):
                        expected = Answer(client, backend.source, f"{number} {turn}")
                        assert await here.answer(sock) == expected

            stats = here.resolver.stats()
            assert (stats["datagrams"], stats["resolved"]) == (2000, 2000)
            assert stats["flows"] == (2 if backend.remembers else 0)

    run(main)


def test_two_balancers_may_use_the_same_port(pair: str, backend: Backend) -> None:
    """The same port on two balancers is two flows, each with a client of its own."""

    async def main() -> None:
        async with world(pair, backend) as here:
            one = here.flow(balancer=0)
            other = here.flow(balancer=1, port=one.getsockname()[1])
            for turn in range(10):
                for sock, client in zip((one, other), here.clients, strict=True):
                    claims = not backend.remembers or turn < 3
                    assert await here.who(sock, client if claims else None) == client

    run(main)


def test_a_reused_port_is_the_new_client(pair: str, backend: Backend) -> None:
    """When a balancer gives a port to another client, that one is seen from its first claim on."""

    async def main() -> None:
        async with world(pair, backend) as here:
            old, new = here.clients
            sock = here.flow()
            port = sock.getsockname()[1]
            assert await here.who(sock, old) == old
            sock.close()
            sock = here.flow(port=port)

            assert await here.who(sock, new) == new
            assert await here.who(sock) == (new if backend.remembers else None)
            assert await here.who(sock, new) == new
            assert here.resolver.stats()["changed"] == (1 if backend.remembers else 0)

    run(main)


def test_an_untrusted_sender_is_direct(pair: str, backend: Backend) -> None:
    """A stranger with a perfect claim is itself: answered, counted, and in no table."""

    async def main() -> None:
        async with world(pair, backend) as here:
            sock = here.flow(host=here.inside.stranger)
            answer = await here.ask(sock, here.clients[0])

            assert (answer.client, answer.source) == (sock.getsockname()[:2], "direct")
            assert answer.payload.endswith("data")
            assert await here.ask(sock) == Answer(sock.getsockname()[:2], "direct", "data")
            stats = here.resolver.stats()
            assert (stats["untrusted"], stats["direct"]) == (1, 2)
            assert (stats["flows"], stats["learned"], stats["found"]) == (0, 0, 0)

    run(main)


def test_a_stranger_does_not_touch_a_flow(pair: str, backend: Backend) -> None:
    """A stranger that uses the same port as a balancer changes nothing for its client."""

    async def main() -> None:
        async with world(pair, backend) as here:
            victim, forged = here.clients
            sock = here.flow()
            assert await here.who(sock, victim) == victim
            stranger = here.flow(host=here.inside.stranger, port=sock.getsockname()[1])
            assert await here.who(stranger, forged) is None

            assert await here.who(sock) == (victim if backend.remembers else None)
            assert await here.who(sock, victim) == victim

    run(main)


@pytest.mark.parametrize("policy", ["replace", "pin"])
def test_three_good_datagrams_then_a_forged_one(
    pair: str, backend: Backend, policy: Policy
) -> None:
    """A client's own claim that a balancer lets through lies under "replace", not under "pin".

    Where each datagram speaks for itself, and where the kernel keeps the flows,
    there is no "pin", and the resolver says so.
    """

    async def main() -> None:
        async with world(pair, backend, policy=policy) as here:
            client, forged = here.clients
            sock = here.flow()
            for _ in range(3):
                assert await here.who(sock, client) == client
            believed = forged if policy == "replace" else client

            assert await here.who(sock, forged) == believed
            assert await here.who(sock) == (believed if backend.remembers else None)
            assert here.resolver.stats()["changed"] == (1 if backend.remembers else 0)

    if policy == "pin" and (not backend.remembers or backend.source == "sockopt"):
        reason = "set the policy there" if backend.remembers else "speaks for itself"
        with pytest.raises(uoa.ConfigurationError, match=reason):
            run(main)
    else:
        run(main)


def test_a_busy_flow_stays_known(pair: str, backend: Backend) -> None:
    """With a claim on its first three datagrams only a flow stays known, past its ttl.

    Headers are not remembered: there the fourth datagram is an error that names
    the peer, where the user asked for errors.
    """

    async def busy() -> None:
        async with world(pair, backend, ttl=1.0) as here:
            client = here.clients[0]
            sock = here.flow()
            end = time.monotonic() + 1.3
            for turn in itertools.count():
                assert await here.who(sock, client if turn < 3 else None) == client
                if turn == 3 and here.table is not None:
                    here.table.delete(sock.getsockname()[:2], here.address)  # it has forgotten
                if time.monotonic() > end:
                    break

            stats = here.resolver.stats()
            found = 0 if backend.source == "sockopt" else 3
            assert (stats["learned"], stats["found"], stats["expired"]) == (1, found, 0)

    async def forgotten() -> None:
        async with world(pair, backend, missing="raise") as here:
            client = here.clients[0]
            sock = here.flow()
            for _ in range(3):
                assert await here.who(sock, client) == client
            here.send(sock, "data")
            await here.server.has_error.wait()

            [error] = here.server.errors
            assert isinstance(error, uoa.UnknownClientError)
            assert error.peer == sock.getsockname()[:2]
            assert await here.who(sock, client) == client

    run(busy if backend.remembers else forgotten)


def test_one_client_through_two_balancers(pair: str, backend: Backend) -> None:
    """Each answer leaves through the balancer that asked, though both name the same client."""

    async def main() -> None:
        async with world(pair, backend) as here:
            client = here.clients[0]
            flows = [here.flow(balancer=0), here.flow(balancer=1)]
            for turn in range(100):
                claims = not backend.remembers or turn < 3
                for number, sock in enumerate(flows):
                    here.send(sock, f"{number} {turn}", client if claims else None)
                for number, sock in enumerate(flows):
                    assert await here.answer(sock) == Answer(
                        client, backend.source, f"{number} {turn}"
                    )

            for sock in flows:
                with pytest.raises(BlockingIOError):
                    sock.recv(65536)
            assert here.resolver.stats()["flows"] == (2 if backend.remembers else 0)

    run(main)


@pytest.mark.parametrize("rebuilds", [False, True], ids=["object", "tuple"])
def test_replies_follow_a_flow_that_moves(pair: str, backend: Backend, rebuilds: bool) -> None:
    """When the balancer gives a client another port, the next reply goes there.

    Also a late reply, to the address object of a datagram from the old port.
    """

    async def main() -> None:
        async with world(pair, backend) as here:
            here.server.rebuilds = rebuilds
            client = here.clients[0]
            old, new = here.flow(), here.flow()
            assert await here.who(old, client) == client
            stale = here.server.last
            assert await here.who(new, client) == client

            here.server.answer(b"late", tuple(stale) if rebuilds else stale, stale.client)
            assert (await here.answer(new)).payload == "late"
            with pytest.raises(BlockingIOError):
                old.recv(65536)

    run(main)


@pytest.mark.parametrize("rebuilds", [False, True], ids=["object", "tuple"])
def test_nobody_steers_the_replies_of_a_direct_client(
    pair: str, backend: Backend, rebuilds: bool
) -> None:
    """A client behind a balancer that claims the address of a direct one gets none of its replies.

    What the claimant sends is answered to the claimant.
    """

    async def main() -> None:
        async with world(pair, backend) as here:
            direct = here.flow(host=here.inside.stranger)
            claimant = here.flow()
            victim = direct.getsockname()[:2]
            assert (await here.ask(direct)).source == "direct"
            earlier = here.server.last
            assert await here.who(claimant, victim) == victim
            here.server.answer(b"late", earlier, earlier.client)
            assert (await here.answer(direct)).payload == "late"

            here.server.rebuilds = rebuilds
            for _ in range(3):
                assert (await here.ask(direct)).source == "direct"
            with pytest.raises(BlockingIOError):
                claimant.recv(65536)

    run(main)


def test_every_reply_of_spp_has_its_header(pair: str, backend: Backend) -> None:
    """An answer to a client behind SPP begins with the header of its flow, others have none."""

    async def main() -> None:
        async with world(pair, backend) as here:
            sock = here.flow()
            direct = here.flow(host=here.inside.stranger)
            vip = ("198.51.100.80", 443)
            for client in here.clients:
                header = b""
                if backend.dialect == "spp":
                    header = uoa.wire.build("spp", client, vip=vip)
                    sock.send(header + b"data")
                else:
                    here.send(sock, "data", client)
                data = await asyncio.get_running_loop().sock_recv(sock, 65536)
                assert data == header + f"{client[0]} {client[1]} {backend.source} data".encode()
            here.send(direct, "data")
            assert (await here.answer(direct)).source == "direct"

    run(main)
