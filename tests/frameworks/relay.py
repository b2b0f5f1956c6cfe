# SPDX-License-Identifier: MIT
"""A full-NAT balancer for clients with a socket of their own, which can also misbehave.

    with Relay(server_address) as relay:
        ...                                # clients talk to relay.address
        relay.claim = ("203.0.113.7", 1)   # from now on every datagram names this client
        relay.move()                       # and comes from another port, the old one closed

It runs in a thread, so that clients and servers may be on any event loop, or on none.
"""

from __future__ import annotations

import functools
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from tests.senders import Address, send_claim, udp_socket

_LARGEST: Final = 65535
_REMEMBERED: Final = 1000
_PATIENCE: Final = 20  # seconds, for what takes milliseconds


class Relay:
    """A balancer in front of one server, with one socket for each client.

    Args:
        server: where the server is.
        dialect: how clients are named, on every datagram; all but ppv2 and spp need
            the capability "raw". None: they are not.
        host: where clients talk to.
        source: where datagrams to the server come from; its loopback address by default.
    """

    def __init__(
        self,
        server: Sequence[Any],
        dialect: str | None = "ppv2",
        *,
        host: str = "127.0.0.1",
        source: str | None = None,
    ) -> None:
        self.claim: Address | None = None
        """Whom all datagrams name; None: who sent them."""
        self.is_forwarding = True
        """Whether the server gets what clients send."""
        self.is_answering = True
        """Whether clients get what the server sends to them."""
        self.sent: deque[bytes] = deque(maxlen=_REMEMBERED)
        """The payloads of clients, handed on or not."""
        self._server = tuple(server[:2])
        self._dialect = dialect
        self._source = source or ("::1" if ":" in server[0] else "127.0.0.1")
        # For all below, between the thread and its users. It tells of every datagram.
        self._lock = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._flows: dict[Address, socket.socket] = {}
        self._strays: list[socket.socket] = []
        self._is_closing = False
        self._front = udp_socket(host)
        self._front.setblocking(False)
        self.address: Address = self._front.getsockname()[:2]
        self._selector.register(self._front, selectors.EVENT_READ, self._forward)
        self._waker, woken = socket.socketpair()
        self._selector.register(woken, selectors.EVENT_READ, self._stop)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._waker.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        for sock in (self._waker, *self._strays):
            sock.close()
        self._selector.close()

    # ---- What users do -----------------------------------------------------------------

    def move(self) -> None:
        """Let all flows come from new ports; nobody is at the old ones any more."""
        with self._lock:
            for client, old in list(self._flows.items()):
                self._open_flow(client)  # first, or it might get the old port
                self._selector.unregister(old)
                old.close()

    def peers(self) -> list[Address]:
        """Return the addresses that the server sees, one a flow, the oldest flow first."""
        with self._lock:
            return [sock.getsockname()[:2] for sock in self._flows.values()]

    def inject(self, payload: bytes, claim: Address, *, is_stray: bool = False) -> None:
        """Send the server a datagram that no client has sent.

        Args:
            payload: what is in it.
            claim: whom it names.
            is_stray: from a new port, instead of that of the oldest flow.
        """
        with self._lock:
            if is_stray:
                sock = udp_socket(self._source)
                self._strays.append(sock)
            else:
                sock = next(iter(self._flows.values()))
            self._send(sock, claim, payload)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until datagrams have come that make the condition true; not on an event loop."""
        with self._lock:
            assert self._lock.wait_for(condition, _PATIENCE)

    # ---- What the thread does ----------------------------------------------------------

    def _run(self) -> None:
        while not self._is_closing:
            for key, _ in self._selector.select():
                with self._lock:
                    key.data(key.fileobj)
                    self._lock.notify_all()

    def _stop(self, _woken: socket.socket) -> None:
        self._is_closing = True

    def _open_flow(self, client: Address) -> socket.socket:
        sock = udp_socket(self._source)
        sock.setblocking(False)
        self._flows[client] = sock
        answer = functools.partial(self._answer, client)
        self._selector.register(sock, selectors.EVENT_READ, answer)
        return sock

    def _forward(self, front: socket.socket) -> None:
        payload, address = front.recvfrom(_LARGEST)
        client: Address = address[:2]
        sock = self._flows.get(client) or self._open_flow(client)
        self.sent.append(payload)
        if self.is_forwarding:
            self._send(sock, self.claim or client, payload)

    def _send(self, sock: socket.socket, claim: Address, payload: bytes) -> None:
        if self._dialect is None:
            sock.sendto(payload, self._server)
        else:
            send_claim(sock, self._server, claim, payload, self._dialect)

    def _answer(self, client: Address, sock: socket.socket) -> None:
        if sock.fileno() == -1:
            return  # moved, after the selector had told of an answer
        payload = sock.recv(_LARGEST)
        if self.is_answering:
            self._front.sendto(payload, client)
