# SPDX-License-Identifier: MIT
"""Receiving from one socket: what the endpoint and `Socket` share."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from uoa._client import Addr, View, addr_from, client_of
from uoa._errors_from_c import check, error_of
from uoa._exceptions import BackendError
from uoa._native import ffi, lib

if TYPE_CHECKING:
    from uoa._resolver import Resolver

BATCH: int = lib.UOA_BATCH
_REFUSALS = {
    errno.EAFNOSUPPORT: "neither AF_INET nor AF_INET6: give a UDP socket",
    errno.EOPNOTSUPP: "UDP_GRO is on, but each datagram has a client of its own: switch it off",
}


class Receiver:
    """Receives and resolves up to `slots` datagrams with one system call.

    For one thread at a time. The address objects of clients that come back are
    kept, since building one costs more than all else.

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
        self._view = view
        self._is_ipv6 = sock.family == socket.AF_INET6
        out = ffi.new("struct uoa_batch **")
        result = lib.uoa_batch_new(out, sock.fileno(), self.table, resolver.native_backend, slots)
        if -result in _REFUSALS:
            raise BackendError(-result, f"socket: {_REFUSALS[-result]}")
        check(result, "socket")
        self._batch = ffi.gc(out[0], lib.uoa_batch_free)
        self._results = lib.uoa_batch_results(self._batch)
        self._data = ffi.buffer(lib.uoa_batch_data(self._batch), slots * lib.UOA_BATCH_ROOM)
        self._addrs: list[Addr | None] = [None] * lib.UOA_BATCH_ALL_NAMES

    def receive(self, flags: int = socket.MSG_DONTWAIT) -> list[tuple[bytes, Any]]:
        """Return the datagrams that are there, each with its Addr; blocks as recvmsg() does.

        Raises:
            OSError: of the subclass that Python would raise.
        """
        count = lib.uoa_batch_receive(self._batch, flags)
        if count < 0:
            raise error_of(count)
        results = ffi.unpack(self._results, lib.UOA_BATCH_RESULTS)
        if results[lib.UOA_BATCH_FRESH_COUNT]:
            self._name_clients(results)
        return [
            (self._data[start:end], self._addrs[name])
            for start, end, name in zip(
                results[lib.UOA_BATCH_START : lib.UOA_BATCH_START + count],
                results[lib.UOA_BATCH_END : lib.UOA_BATCH_END + count],
                results[lib.UOA_BATCH_NAME : lib.UOA_BATCH_NAME + count],
                strict=True,
            )
        ]

    def _name_clients(self, results: list[int]) -> None:
        """Build the addresses of clients that were not seen before."""
        first = lib.UOA_BATCH_FRESH
        for name in results[first : first + results[lib.UOA_BATCH_FRESH_COUNT]]:
            client = client_of(lib.uoa_batch_client(self._batch, name))
            self._addrs[name] = addr_from(client, self._view, self._is_ipv6)

    def close(self) -> None:
        """Give the memory up."""
        self._addrs.clear()
        ffi.release(self._batch)
        self.table = None
