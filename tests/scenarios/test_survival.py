# SPDX-License-Identifier: MIT
"""What is still known after a restart, a fork, a new SO_REUSEPORT socket, a detach.

These are the cells of the table in docs/survival.md. A server in a process of its
own, or the test itself, tells who each datagram is from; a flow sends as a balancer
does: with a claim on its first three datagrams, or with a header on each. Where the
kernel keeps the table (sockopt), a claim is entered there before its datagram is sent.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

import pytest

import uoa
from tests.clock import Clock
from tests.scenarios.hosts import BACKENDS, Backend
from tests.senders import IP_RECVOPTS, Address, send_claim, udp_socket
from tests.sockopt.kernel_table import KernelTable

SERVER: Final = ("10.0.1.9", 9999)
BALANCER: Final = "10.0.0.5"
TRUST: Final = "10.0.0.0/24"
ALICE: Final = ("203.0.113.7", 5001)
BOB: Final = ("203.0.113.8", 5002)
CAROL: Final = ("203.0.113.9", 5003)
TTL: Final = 360.0

PROGRAM: Final = """
import asyncio, os, sys
import uoa

class Who(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
        print("ready", flush=True)

    def datagram_received(self, data, addr):
        client = addr.client
        answer = f"{os.getpid()} {client.source} {client.host} {client.port}"
        self.transport.sendto(answer.encode(), addr)

host, port, trust, backend, dialect, once = sys.argv[1:]
resolver = uoa.Resolver(trust, backend, dialect, once=once == "True")
asyncio.run(uoa.asyncio.serve(Who, host, int(port), resolver=resolver, reuse_port=True))
"""

CHOSEN: Final = {name: BACKENDS[name] for name in ("cmsg", "proxy", "once", "sockopt")}

pytestmark = pytest.mark.netns(BALANCER, SERVER[0])
each_backend = pytest.mark.parametrize("backend", CHOSEN.values(), ids=CHOSEN)


class Answer(NamedTuple):
    """Which process has read a datagram, and whose it says that it is."""

    process: int
    client: Address | None


@dataclass
class Flow:
    """A port of the balancer that stands for one client."""

    sock: socket.socket
    client: Address
    backend: Backend
    table: KernelTable | None
    sent: int = 0

    def send(self) -> None:
        """Send the next datagram, as the balancer does."""
        if self.sent < 3 or not self.backend.remembers:
            if self.table is not None:
                self.table.set(self.sock.getsockname(), SERVER, self.client)
            send_claim(self.sock, SERVER, self.client, b"data", self.backend.dialect)
        else:
            self.sock.send(b"data")
        self.sent += 1

    def answer(self) -> Answer:
        """Wait for the answer."""
        process, source, host, port = self.sock.recv(1000).decode().split()
        return Answer(int(process), None if source == "none" else (host, int(port)))

    def ask(self) -> Answer:
        """Send the next datagram and wait for its answer."""
        self.send()
        return self.answer()

    def who(self) -> Address | None:
        """Return the client of the next datagram, None if it is unknown."""
        return self.ask().client


@dataclass
class World:
    """A balancer, and the kernel's table if there is one."""

    backend: Backend
    table: KernelTable | None
    stack: ExitStack

    def flow(self, client: Address) -> Flow:
        """Return a new flow."""
        sock = self.stack.enter_context(udp_socket(BALANCER))
        sock.connect(SERVER)
        return Flow(sock, client, self.backend, self.table)

    def told_again(self, client: Address) -> Address | None:
        """Return who a process sees that has none of the flow's first datagrams."""
        is_lost = self.backend.remembers and self.table is None
        return None if is_lost else client

    @contextmanager
    def server(self) -> Iterator[int]:
        """Start a server, and end it; yields the number of its process."""
        backend = self.backend
        arguments = (*SERVER, TRUST, backend.source, backend.dialect, backend.once)
        command = [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                yield process.pid
            finally:
                process.terminate()


@contextmanager
def world(backend: Backend) -> Iterator[World]:
    """Make the balancer, and close it at the end."""
    with ExitStack() as stack:
        table = stack.enter_context(KernelTable()) if backend.source == "sockopt" else None
        yield World(backend, table, stack.enter_context(ExitStack()))


class Server:
    """A server that is the test itself: it reads one datagram when it is told to."""

    def __init__(self, here: World) -> None:
        backend = here.backend
        self.sock = here.stack.enter_context(udp_socket(*SERVER))
        self.sock.setsockopt(socket.IPPROTO_IP, IP_RECVOPTS, 1)
        self.resolver = uoa.Resolver(
            TRUST, backend.source, backend.dialect, once=backend.once, ttl=TTL
        )
        self.asker = self.resolver.meet(self.sock, reads=True)

    def turn(self) -> None:
        """Read a datagram, and answer it."""
        data, ancdata, flags, peer = self.sock.recvmsg(2000, 1000)
        client, _ = self.resolver.resolve(
            peer, data, ancdata, flags, local=SERVER, asker=self.asker
        )
        answer = f"{os.getpid()} {client.source} {client.host} {client.port}"
        self.sock.sendto(answer.encode(), peer)

    def who(self, flow: Flow) -> Address | None:
        """Return the client of a flow's next datagram, None if it is unknown."""
        flow.send()
        self.turn()
        return flow.answer().client


@contextmanager
def forked(turn: Callable[[], None]) -> Iterator[Callable[[bytes], int | None]]:
    """Fork a child that takes its turn as often as the function that comes back gets a byte."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(write)
            while os.read(read, 1):
                turn()
            status = 0
        finally:
            os._exit(status)
    os.close(read)
    with open(write, "wb", buffering=0) as go:
        yield go.write
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@each_backend
def test_a_restart_of_the_server(backend: Backend) -> None:
    """A flow goes on: headers on each datagram and the kernel tell its client again.

    An option, or a header that comes once, has been told to a process that is no more.
    """
    with world(backend) as here:
        flow = here.flow(ALICE)
        with here.server() as old:
            assert [flow.ask() for _ in range(5)] == [Answer(old, ALICE)] * 5
        with here.server() as new:
            assert [flow.ask() for _ in range(5)] == [Answer(new, here.told_again(ALICE))] * 5
            assert here.flow(BOB).who() == BOB


@each_backend
def test_a_restart_of_the_host(backend: Backend) -> None:
    """Without server and table a live flow is known by headers on each datagram only.

    It is known again when the balancer makes a new flow of it.
    """
    with world(backend) as here:
        flow = here.flow(ALICE)
        with here.server():
            assert [flow.who() for _ in range(5)] == [ALICE] * 5
        if here.table is not None:
            here.table.delete(flow.sock.getsockname(), SERVER)
        with here.server():
            assert flow.who() == (None if backend.remembers else ALICE)
            flow.sent = 0
            assert [flow.who() for _ in range(5)] == [ALICE] * 5


@each_backend
def test_a_fork(backend: Backend) -> None:
    """A child has the parent's flows as they were, and from then on each learns for itself."""
    with world(backend) as here:
        parent = Server(here)
        alice, bob, carol = (here.flow(client) for client in (ALICE, BOB, CAROL))
        assert [parent.who(alice) for _ in range(3)] == [ALICE] * 3
        with forked(parent.turn) as child_turn:

            def in_child(flow: Flow) -> Address | None:
                flow.send()
                child_turn(b".")
                process, client = flow.answer()
                assert process != os.getpid()
                return client

            assert in_child(alice) == ALICE
            assert [in_child(bob) for _ in range(3)] == [BOB] * 3
            assert parent.who(bob) == here.told_again(BOB)
            assert [parent.who(carol) for _ in range(3)] == [CAROL] * 3
            assert in_child(carol) == here.told_again(CAROL)
            assert (parent.who(alice), in_child(alice)) == (ALICE, ALICE)


@each_backend
def test_another_socket_on_the_port(backend: Backend) -> None:
    """With SO_REUSEPORT the kernel moves flows to a socket that joins: there options are unknown.

    When that socket leaves its flows come back, to a process that knows them still.
    """
    with world(backend) as here:
        flows = [here.flow((ALICE[0], 5000 + number)) for number in range(32)]
        with here.server() as first:
            for flow in flows:
                assert [flow.ask() for _ in range(3)] == [Answer(first, flow.client)] * 3
            with here.server() as second:
                answers = [flow.ask() for flow in flows]
                assert {answer.process for answer in answers} == {first, second}
                for flow, answer in zip(flows, answers, strict=True):
                    moved = answer.process == second
                    assert answer.client == (here.told_again(flow.client) if moved else flow.client)
            for flow in flows:
                assert flow.ask() == Answer(first, flow.client)


def test_a_kernel_side_that_is_detached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows that the server knows stay known as long as they are busy; new ones are unknown.

    No server can be started meanwhile.
    """
    clock = Clock()
    clock.patch(monkeypatch)
    with world(BACKENDS["sockopt"]) as here:
        assert here.table is not None
        server = Server(here)
        alice, silent = here.flow(ALICE), here.flow(CAROL)
        assert (server.who(alice), server.who(silent)) == (ALICE, CAROL)
        here.table.answers()
        for _ in range(10):
            clock.now += TTL - 1
            questions = here.table.asked()[2051]
            assert server.who(alice) == ALICE
            assert here.table.asked()[2051] == questions + 1

        assert server.who(here.flow(BOB)) is None
        silent.sent = 3
        assert server.who(silent) is None
        with pytest.raises(uoa.BackendError, match="nobody answers"):
            uoa.Resolver(TRUST, "sockopt").meet(server.sock, reads=True)


def test_a_kernel_side_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins with an empty table takes no known flow away, and tells of new ones.

    A server asks with the request that was answered when it started: what answers an older
    one only is of use to servers that start afterwards.
    """
    clock = Clock()
    clock.patch(monkeypatch)
    with world(BACKENDS["sockopt"]) as here:
        assert here.table is not None
        server = Server(here)
        alice, bob = here.flow(ALICE), here.flow(BOB)
        assert server.who(alice) == ALICE
        here.table.answers()
        here.table.delete(alice.sock.getsockname(), SERVER)
        here.table.answers(2048, 2051)
        clock.now += 2
        alice.sent = 3
        assert server.who(alice) == ALICE
        assert server.who(bob) == BOB

        here.table.answers(2048)
        clock.now += 2
        carol = here.flow(CAROL)
        assert (server.who(bob), server.who(carol)) == (BOB, None)
        server.asker = server.resolver.meet(server.sock, reads=True)
        assert server.who(carol) == CAROL
