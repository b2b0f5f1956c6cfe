# SPDX-License-Identifier: MIT
"""A server of one adapter, and what is around it, on the addresses of tests/scenarios/hosts.py.

Every server answers a question with one line, or writes it down where its protocol
has no answers; `current` is what `uoa.current()` says while the question is handled:

    client HOST:PORT via HOST:PORT source=NAME current=HOST:PORT

The test holds the balancers' sockets and plays the clients behind them, so that it
decides what each datagram claims and through which port it comes.
"""

from __future__ import annotations

import copy
import pickle
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from socket import socket
from typing import Any, Final, Protocol

import uoa
from tests.scenarios.hosts import HOSTS, PAIRS, Backend, Hosts
from tests.senders import Address, send_claim, udp_socket
from tests.sockopt.kernel_table import KernelTable
from uoa.cli._hostport import text_of

PATIENCE: Final = 30  # seconds, for what takes milliseconds

REBUILDS: Final[dict[str, Callable[[Any], Any]]] = {
    "object": lambda addr: addr,
    "tuple": tuple,
    "slice": lambda addr: addr[:2],
    "deepcopy": copy.deepcopy,
    "pickle": lambda addr: pickle.loads(pickle.dumps(addr)),
}
"""What frameworks do to an address before they answer it."""


def line_of(client: uoa.Client) -> str:
    """Return the line about a client, with the current one."""
    now = uoa.current()
    return (
        f"client {text_of((client.host, client.port))} via {text_of(client.peer)} "
        f"source={client.source} current={now and text_of((now.host, now.port))}"
    )


@dataclass
class Running:
    """A server at work."""

    address: Address
    lines: list[str] = field(default_factory=list)
    """What it has said."""
    complaints: list[object] = field(default_factory=list)
    """Exceptions that reached the loop's handler, or a server's handle_error()."""
    log: list[str] = field(default_factory=list)
    """What the framework's logger was told."""
    rebuild: Callable[[Any], Any] = REBUILDS["object"]
    """What is done to an address before it is answered."""
    news: threading.Condition = field(default_factory=threading.Condition)

    def say(self, client: uoa.Client) -> bytes:
        """Write the line down; return it."""
        line = line_of(client)
        with self.news:
            self.lines.append(line)
            self.news.notify_all()
        return line.encode()

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until what was said fulfils a condition."""
        with self.news:
            assert self.news.wait_for(condition, PATIENCE), self.lines[-3:]


Start = Callable[[uoa.Resolver, str], AbstractContextManager[Running]]


def wait_readable(sock: socket, until: float) -> bool:
    """Wait for a datagram; return whether one came in time, by time.monotonic()."""
    return bool(select.select([sock], [], [], max(0.0, until - time.monotonic()))[0])


def line(client: Address, sock: socket, source: str) -> str:
    """Return the line about a client that came through a socket."""
    own = text_of(client)
    return f"client {own} via {text_of(sock.getsockname()[:2])} source={source} current={own}"


class Talk(Protocol):
    """One client's conversation with the server."""

    def ask(self, sock: socket, claim: Address | None) -> str:
        """Ask through a socket of a balancer that claims so; return the server's line."""


@dataclass
class World:
    """The server and its surroundings."""

    adapter: Adapter
    backend: Backend
    inside: Hosts
    clients: tuple[Address, Address]
    table: KernelTable | None
    resolver: uoa.Resolver
    running: Running
    sockets: ExitStack = field(default_factory=ExitStack)

    def flow(self, balancer: int = 0, host: str | None = None) -> socket:
        """Return a socket of a balancer, or of another host, that hears the server only."""
        sock = self.sockets.enter_context(udp_socket(host or self.inside.balancers[balancer]))
        sock.setblocking(False)
        if self.adapter.answers_from_asked or self.running.address[0] == self.inside.server:
            sock.connect(self.address)
        return sock

    @property
    def address(self) -> Address:
        """Where the balancers send to."""
        return self.inside.server, self.running.address[1]

    def stranger(self) -> socket:
        """Return a socket of a host that is no balancer."""
        return self.flow(host=self.inside.stranger)

    def send(self, sock: socket, payload: bytes, claim: Address | None) -> None:
        """Send a datagram that claims to be from `claim`, or claims nothing."""
        if claim is None:
            sock.sendto(payload, self.address)
            return
        peer = sock.getsockname()[:2]
        if self.table is not None and peer[0] in self.inside.balancers:
            self.table.set(peer, self.address, claim)
        send_claim(sock, self.address, claim, payload, self.backend.dialect)

    def receive(self, sock: socket, until: float) -> bytes | None:
        """Return the payload of the next datagram from the server; None: none came in time."""
        if not wait_readable(sock, until):
            return None
        data = sock.recv(65535)
        if self.backend.dialect == "spp" and data.startswith(b"\x56\xec"):
            return data[38:]
        return data

    def talk(self) -> Talk:
        """Begin a conversation."""
        talk: Talk = self.adapter.talk(self)
        return talk


class Datagrams:
    """The conversation of protocols that ask with a datagram and answer with one."""

    def __init__(self, world: World) -> None:
        self._world = world

    def ask(self, sock: socket, claim: Address | None) -> str:
        """Ask; wait for the answer, or where there is none for the server's line."""
        world, adapter = self._world, self._world.adapter
        before = len(world.running.lines)
        world.send(sock, adapter.question(), claim)
        if adapter.answer is None:
            via = f" via {text_of(sock.getsockname()[:2])} "
            found: list[str] = []

            def has_come() -> bool:
                found[:] = [said for said in world.running.lines[before:] if via in said]
                return bool(found)

            world.running.wait(has_come)
            return found[0]
        data = world.receive(sock, time.monotonic() + PATIENCE)
        assert data is not None, (world.running.lines[before:], world.running.complaints)
        return adapter.answer(data)


ALL_BACKENDS: Final = ("cmsg", "proxy", "once", "spp", "sockopt")
NO_CMSG: Final = ("proxy", "once", "spp", "sockopt")


@dataclass(frozen=True)
class Adapter:
    """A way into uoa, and what its protocol is like."""

    start: Start
    backends: tuple[str, ...] = ALL_BACKENDS
    """Those that its transport allows; it refuses the others when it starts."""
    question: Callable[[], bytes] = lambda: b"who am I?"
    answer: Callable[[bytes], str] | None = bytes.decode
    """Reads the line out of an answer; None: the protocol has none."""
    has_empty: bool = True
    """Whether its protocol has empty messages, which it is handed then."""
    rebuilds: bool = True
    """Whether its applications can rebuild the address that they answer."""
    talk: Callable[[Any], Any] = Datagrams
    """Makes the conversation of one client."""
    answers_from_asked: bool = True
    """Whether its answers leave from the address that was asked, on a socket bound to all."""
    is_frozen: bool = False
    """Whether it names the client and the peer of a connection's beginning, for ever."""
    turns: int = 1000
    """How often two clients take turns in the test of mix-ups."""


@contextmanager
def world(
    adapter: Adapter,
    backend: Backend,
    pair: str = "4to4",
    *,
    bound: str | None = None,
    **more: object,
) -> Iterator[World]:
    """Start a server, on one address unless `bound` names another; close everything at the end.

    Args:
        adapter: which server.
        backend: how the client's address travels.
        pair: families of the client and of the packets the server gets, of `PAIRS`.
        bound: what the server binds.
        more: further arguments of the resolver.
    """
    outer, inner = (HOSTS[family] for family in PAIRS[pair])
    trust = [hosts.trust for hosts in HOSTS.values()]
    resolver = uoa.Resolver(trust, backend.source, backend.dialect, once=backend.once, **more)  # type: ignore[arg-type]
    one, other = outer.clients
    with ExitStack() as stack:
        table = stack.enter_context(KernelTable()) if backend.source == "sockopt" else None
        running = stack.enter_context(adapter.start(resolver, bound or inner.server))
        here = World(
            adapter, backend, inner, ((one, 5001), (other, 5002)), table, resolver, running
        )
        with here.sockets:
            yield here
        assert running.complaints == []
    resolver.close()
