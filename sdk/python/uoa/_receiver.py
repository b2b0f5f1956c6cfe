# SPDX-License-Identifier: MIT
"""Receiving: what the endpoint, `Socket` and `wrap` share."""

from __future__ import annotations

import errno
import socket
import time
from typing import TYPE_CHECKING, Any

from uoa._address import native_of, to_native
from uoa._client import Addr, View, addr_from, client_of
from uoa._errors_from_c import check, error_of
from uoa._exceptions import BackendError
from uoa._native import ffi, lib

if TYPE_CHECKING:
    from uoa._resolver import Resolver

BATCH: int = lib.UOA_BATCH
# Names of lib are looked up each time; these stand where every datagram passes.
_START, _END, _NAME = lib.UOA_BATCH_START, lib.UOA_BATCH_END, lib.UOA_BATCH_NAME
_FRESH_COUNT = lib.UOA_BATCH_FRESH_COUNT
# What uoa_names_resolve() returns.
_NUMBER, _FRESH, _STRIP_SHIFT = (1 << 31) - 1, 1 << 31, 32
_REFUSALS = {
    errno.EAFNOSUPPORT: "neither AF_INET nor AF_INET6: give a UDP socket",
    errno.EOPNOTSUPP: "UDP_GRO is on, but each datagram has a client of its own: switch it off",
}


class Addrs:
    """The address objects of the clients that come back: building one costs more than all else.

    C gives clients numbers, `struct uoa_names`, and says when a number has a new one.
    """

    def __init__(self, names: Any, view: View, is_ipv6: bool) -> None:
        self._names = names
        self._view = view
        self._is_ipv6 = is_ipv6
        self.all: list[Addr | None] = [None] * lib.UOA_BATCH_ALL_NAMES

    def renew(self, number: int) -> None:
        """Build the address of a number whose client is new."""
        client = client_of(lib.uoa_names_client(self._names, number))
        self.all[number] = addr_from(client, self._view, self._is_ipv6)


class Resolving:
    """Resolves datagrams that others have received, without ancillary data."""

    def __init__(
        self, resolver: Resolver, asker: Any, local: tuple[str, int], view: View, is_ipv6: bool
    ) -> None:
        self._resolver = resolver
        self._asker = asker
        self._local = to_native(local)
        self._names = ffi.gc(lib.uoa_names_new(), lib.uoa_names_free)
        if not self._names:
            raise MemoryError
        self._addrs = Addrs(self._names, view, is_ipv6)

    def resolve(self, peer: tuple[Any, ...], data: bytes) -> tuple[bytes, Any]:
        """Return the payload without any header, and the Addr that it is from.

        Raises:
            ClosedError: the resolver was closed.
        """
        result = lib.uoa_names_resolve(
            self._names,
            self._resolver.native,
            native_of(peer),
            self._local,
            self._asker,
            data,
            len(data),
            time.monotonic_ns(),
        )
        number = result & _NUMBER
        if result & _FRESH:
            self._addrs.renew(number)
        self._resolver.log_news()
        strip = result >> _STRIP_SHIFT
        return data[strip:] if strip else data, self._addrs.all[number]


class Receiver:
    """Receives and resolves up to `slots` datagrams with one system call.

    For one thread at a time.

    Raises:
        BackendError: the socket cannot be served; its text says why.
        ConfigurationError: the backend cannot work with it.
    """

    def __init__(
        self, sock: socket.socket, resolver: Resolver, view: View, slots: int = BATCH
    ) -> None:
        resolver.meet(sock, reads=True)
        # Kept, so that the table outlives a resolver that is closed too early.
        self.table = resolver.native
        out = ffi.new("struct uoa_batch **")
        result = lib.uoa_batch_new(out, sock.fileno(), self.table, resolver.native_backend, slots)
        if -result in _REFUSALS:
            raise BackendError(-result, f"socket: {_REFUSALS[-result]}")
        check(result, "socket")
        self._batch = ffi.gc(out[0], lib.uoa_batch_free)
        self._results = lib.uoa_batch_results(self._batch)
        self._data = ffi.buffer(lib.uoa_batch_data(self._batch), slots * lib.UOA_BATCH_ROOM)
        names = lib.uoa_batch_names(self._batch)
        self._addrs = Addrs(names, view, sock.family == socket.AF_INET6)

    def receive_one(self, flags: int = socket.MSG_DONTWAIT) -> tuple[bytes, Any]:
        """Return one datagram, as receive() does; there has to be one slot."""
        count = lib.uoa_batch_receive(self._batch, flags)
        if count < 0:
            raise error_of(count)
        return self._first()

    def _first(self) -> tuple[bytes, Any]:
        """Return the first datagram of a batch, without a look at the other results."""
        results = self._results
        number = results[_NAME]
        if results[_FRESH_COUNT]:
            self._addrs.renew(number)
        return self._data[results[_START] : results[_END]], self._addrs.all[number]

    def receive(self, flags: int = socket.MSG_DONTWAIT) -> list[tuple[bytes, Any]]:
        """Return the datagrams that are there, each with its Addr; blocks as recvmsg() does.

        Raises:
            OSError: of the subclass that Python would raise.
        """
        count = lib.uoa_batch_receive(self._batch, flags)
        if count < 0:
            raise error_of(count)
        if count == 1:
            return [self._first()]
        results = ffi.unpack(self._results, lib.UOA_BATCH_RESULTS)
        first = lib.UOA_BATCH_FRESH
        for number in results[first : first + results[_FRESH_COUNT]]:
            self._addrs.renew(number)
        addrs = self._addrs.all
        return [
            (self._data[start:end], addrs[name])
            for start, end, name in zip(
                results[_START : _START + count],
                results[_END : _END + count],
                results[_NAME : _NAME + count],
                strict=True,
            )
        ]

    def close(self) -> None:
        """Give the memory up."""
        self._addrs.all.clear()
        ffi.release(self._batch)
        self.table = None
