# SPDX-License-Identifier: MIT
"""A resolver is for many threads, also across fork(); a receiver and a sender are for one."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import uoa
from tests.senders import udp_socket
from uoa import wire
from uoa._native import ffi, lib
from uoa._receiver import Receiver

PEER: Final = ("10.0.0.5", 4000)
CLIENT: Final = ("203.0.113.7", 5000)
TRUST: Final = "10.0.0.0/24,127.0.0.0/8"
_EBUSY: Final = -errno.EBUSY


@contextmanager
def threads(count: int, work: object) -> Iterator[list[BaseException]]:
    """Run `work` in some threads until the block ends; collect what they raise."""
    errors: list[BaseException] = []
    stop = threading.Event()

    def run(number: int) -> None:
        try:
            while not stop.is_set():
                work(number)  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in running:
        thread.start()
    try:
        yield errors
    finally:
        stop.set()
        for thread in running:
            thread.join()


def test_threads_share_a_resolver() -> None:
    """Threads that resolve, look up, route and change trust get each its own client."""
    resolver = uoa.Resolver(TRUST, dialects="ppv2", once=True, max_flows=64)

    def work(number: int) -> None:
        peer, client = ("10.0.0.5", 4000 + number), ("203.0.113.7", 5000 + number)
        for _ in range(50):
            found, _ = resolver.resolve(peer, wire.build("ppv2", client), local=("10.0.1.9", 53))
            assert (found.host, found.port) == client
            assert resolver.route(client, ("10.0.1.9", 53)).peer == peer
            known = resolver.lookup(peer)
            assert known is not None
            assert known.port == client[1]
            resolver.set_trust(TRUST)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with threads(4, work) as errors:
            while resolver.stats()["datagrams"] < 20_000 and not errors:
                resolver.stats()
    finally:
        sys.setswitchinterval(before)

    assert errors == []
    assert resolver.stats()["flows"] == 4


def test_a_child_of_fork_has_a_copy() -> None:
    """A child goes on with the flows of its parent, and what it learns stays there."""
    resolver = uoa.Resolver(TRUST, dialects="ppv2", once=True)
    resolver.resolve(PEER, wire.build("ppv2", CLIENT))
    other = ("10.0.0.6", 4000)

    def in_child() -> bool:
        resolver.resolve(other, wire.build("ppv2", CLIENT))
        return resolver.resolve(PEER, b"data")[0].resolved and resolver.stats()["flows"] == 2

    assert forked(in_child) == 0
    assert resolver.lookup(other) is None
    assert resolver.stats()["flows"] == 1


def test_fork_waits_for_threads_inside_a_resolver() -> None:
    """A child can resolve, whatever other threads did at the moment of fork()."""
    resolver = uoa.Resolver(TRUST, dialects="ppv2", once=True, max_flows=64)

    def work(number: int) -> None:
        for port in range(1, 200):
            resolver.resolve((f"10.0.0.{number}", port), wire.build("ppv2", CLIENT))

    with threads(3, work) as errors:
        for _ in range(100):
            statuses = forked(
                lambda: resolver.resolve(PEER, wire.build("ppv2", CLIENT))[0].resolved
            )
            assert statuses == 0

    assert errors == []


def test_fork_waits_for_a_resolver_that_meets_a_socket() -> None:
    """A child can serve a socket, though another thread was opening one at that moment."""
    is_inside, forks = threading.Event(), threading.Event()
    os.register_at_fork(before=forks.set)  # called before uoa's own, which is older

    class Slow(socket.socket):
        def fileno(self) -> int:
            # Other threads have their turn here, as in the system call that this is for.
            is_inside.set()
            assert forks.wait(20)
            return super().fileno()

    resolver = uoa.Resolver(TRUST)

    def meet(sock: socket.socket) -> bool:
        try:
            resolver.meet(sock, reads=False)
        except uoa.BackendError:
            return True
        return False

    with Slow(socket.AF_INET, socket.SOCK_DGRAM) as slow, udp_socket("127.0.0.1") as sock:
        thread = threading.Thread(target=meet, args=(slow,))
        thread.start()
        assert is_inside.wait(20)
        status = forked(lambda: meet(sock))
        thread.join()

    assert status == 0


def forked(work: object) -> int:
    """Run `work` in a child, which ends after seconds if it hangs; return 0 if it is true."""
    with warnings.catch_warnings():
        # Python 3.12 warns of fork() beside threads, which is what this is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        status = 2
        try:
            status = 0 if work() else 1  # type: ignore[operator]
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_receiver_is_for_one_thread() -> None:
    """A second thread is refused with EBUSY while the first one waits inside."""
    resolver = uoa.Resolver(TRUST)
    with udp_socket("127.0.0.1") as sock, udp_socket("127.0.0.1") as other:
        sock.setblocking(True)
        receiver = Receiver(sock, resolver, "client", slots=1)
        results: list[int] = []

        def receive() -> None:
            while not results:
                with suppress(OSError):  # EBUSY: the other thread was inside
                    results.append(len(receiver.receive(0)))

        waiting = threading.Thread(target=receive)
        waiting.start()
        try:
            deadline = time.monotonic() + 20
            tries = (
                lib.uoa_batch_receive(receiver._batch, socket.MSG_DONTWAIT)
                for _ in iter(lambda: time.monotonic() < deadline, False)
            )
            assert _EBUSY in tries
        finally:
            other.sendto(b"data", sock.getsockname())
            waiting.join()
            receiver.close()

    assert results == [1]


def test_a_sender_is_for_one_thread() -> None:
    """Of threads that use one sender at once each call works, or is refused with EBUSY."""
    with udp_socket("127.0.0.1") as sock:
        out = ffi.new("struct uoa_sender **")
        assert lib.uoa_sender_new(out, sock.fileno(), ffi.NULL) == 0
        sender = ffi.gc(out[0], lib.uoa_sender_free)
        to = ffi.new("struct uoa_addr *", {"port": sock.getsockname()[1]})
        ffi.memmove(to.host, bytes(10) + b"\xff\xff" + bytes([127, 0, 0, 1]), 16)
        seen: set[int] = set()

        def work(_: int) -> None:
            for _ in range(100):
                seen.add(lib.uoa_sender_put(sender, bytes(60_000), 60_000, to))
                seen.add(lib.uoa_sender_flush(sender))

        with threads(4, work) as errors:
            while _EBUSY not in seen and not errors:
                seen.add(lib.uoa_sender_flush(sender))

    assert errors == []
    assert {result for result in seen if result < 0} <= {_EBUSY, -errno.ENOBUFS}
