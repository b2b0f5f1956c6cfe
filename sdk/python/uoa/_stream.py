# SPDX-License-Identifier: MIT
"""The PROXY v2 header at the start of a TCP connection: all that uoa knows of TCP."""

from __future__ import annotations

import errno
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from uoa._address import to_native
from uoa._client import Client, client_of
from uoa._exceptions import ConfigurationError
from uoa._native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from uoa._resolver import Resolver


class ConnectionOverError(OSError):
    """A connection broke, or its time is over."""


class Connection(socket.socket):
    """An accepted TCP connection whose reads and writes end when their time is over.

    A timeout of the socket itself begins anew with every byte, so that who sends
    one now and then would keep a thread for as long as it likes.
    """

    _deadline = 0.0
    _unread = b""

    @classmethod
    def take(cls, sock: socket.socket) -> Self:
        """Take a socket over: `sock` is detached."""
        return cls(fileno=sock.detach())

    def allow(self, seconds: float) -> None:
        """Let all that follows end in so many seconds."""
        self._deadline = time.monotonic() + seconds

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ConnectionOverError(errno.ETIMEDOUT, "too slow")
        self.settimeout(left)
        try:
            yield
        except OSError as error:
            raise ConnectionOverError(error.errno, str(error)) from error

    def unread(self, data: bytes) -> None:
        """Let the next recv() begin with `data`."""
        self._unread = data + self._unread

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive, in time."""
        if self._unread:
            data, self._unread = self._unread[:bufsize], self._unread[bufsize:]
            return data
        with self._in_time():
            return super().recv(bufsize, flags)

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a buffer, in time: files made by makefile() do that."""
        with memoryview(buffer).cast("B") as room:
            data = self.recv(nbytes or len(room), flags)
            room[: len(data)] = data
        return len(data)

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """Send, in time."""
        with self._in_time():
            super().sendall(data, flags)


def check_resolver(resolver: Resolver) -> None:
    """Refuse a resolver that knows nothing of TCP.

    Raises:
        ConfigurationError: it does not read PROXY v2.
    """
    if resolver.backend != "proxy" or "ppv2" not in resolver.dialects:
        raise ConfigurationError(
            f"tcp: backend {resolver.backend!r} with dialects {', '.join(resolver.dialects)} "
            "tells nothing of TCP connections: only a PROXY v2 header does: give a resolver with "
            'dialects="ppv2" (backend proxy), and let the balancer send it'
        )


def read_client(connection: Connection, resolver: Resolver) -> Client | None:
    """Take the header off a connection, and return who opened it.

    Of a peer that is not trusted nothing is read. None: there is nobody to serve,
    since the header is malformed, or the connection has ended within it.

    Raises:
        ConnectionOverError: it broke, or the header did not come in time.
    """
    try:
        names = connection.getpeername(), connection.getsockname()
    except OSError as error:  # It was reset already.
        raise ConnectionOverError(error.errno, str(error)) from error
    peer, local = (to_native(name) for name in names)
    client = ffi.new("struct uoa_client *")
    start = b""
    while True:
        data = ffi.from_buffer(start)
        result = lib.uoa_resolve_stream(resolver.native, peer, local, data, len(start), client)
        if result <= len(start):
            break
        more = connection.recv(result - len(start))
        if not more:
            return None
        start += more
    resolver.log_news()
    if result == -errno.EBADMSG:
        return None
    connection.unread(start[result:])
    return client_of(client)
