# SPDX-License-Identifier: MIT
"""Datagram endpoints for asyncio and uvloop whose protocols see the client.

Signatures and behaviour are those of the event loop's own methods. The endpoint
reads up to 64 datagrams with one system call and answers likewise.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from uoa._address import native_of
from uoa._arguments import check_view, choose_resolver
from uoa._client import Addr, View
from uoa._context import enter, leave
from uoa._errors_from_c import check, error_of
from uoa._exceptions import UnknownClientError
from uoa._native import ffi, lib
from uoa._receiver import BATCH, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uoa._resolver import Resolver

__all__ = ["create_datagram_endpoint", "serve"]

_BATCHES_PER_WAKEUP = 4  # then other tasks of the loop have their turn
_HIGH_WATER = 64 * 1024  # bytes waiting to be sent, as in asyncio


class _Transport(asyncio.DatagramTransport):
    """One UDP socket, read in batches, that tells each datagram's client."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        resolver: Resolver,
        view: View,
        owns_resolver: bool,
    ) -> None:
        super().__init__(
            {
                "socket": sock,
                "sockname": sock.getsockname(),
                "peername": _peername(sock),
                "uoa.resolver": resolver,
            }
        )
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._resolver = resolver
        self._owns_resolver = owns_resolver
        self._is_connected = _peername(sock) is not None
        self._last: Addr | None = None  # on a connected socket
        self._closing = False
        self._lost = False
        self._in_batch = False
        self._writing = False  # waits for the socket to take more
        self._paused = False
        self._reading = True
        self._started = False
        self._pending: deque[tuple[bytes, Any, Any]] = deque()  # data, put function, address
        self._pending_bytes = 0
        self._limits = (_HIGH_WATER // 4, _HIGH_WATER)
        self._receiver = Receiver(sock, resolver, view)
        # In the peer view an address is a peer's: no claim may lead it elsewhere.
        table = self._receiver.table if view == "client" else ffi.NULL
        out = ffi.new("struct uoa_sender **")
        check(lib.uoa_sender_new(out, self._fd, table), "socket")
        self._sender = ffi.gc(out[0], lib.uoa_sender_free)
        self.set_protocol(protocol)
        # Before the first datagram, as asyncio does it.
        loop.call_soon(protocol.connection_made, self)
        loop.call_soon(self._start)

    def _start(self) -> None:
        self._started = True
        if self._reading and not self._closing:
            self._loop.add_reader(self._fd, self._read_ready)

    def is_reading(self) -> bool:
        """Return whether datagrams are being received."""
        return self._reading

    def pause_reading(self) -> None:
        """Leave datagrams in the socket's buffer; those of the batch at hand still come."""
        if self._reading and self._started:
            self._loop.remove_reader(self._fd)
        self._reading = False

    def resume_reading(self) -> None:
        """Receive again, after pause_reading()."""
        if self._reading or self._closing:
            return
        self._reading = True
        if self._started:
            self._loop.add_reader(self._fd, self._read_ready)

    # ---- Receiving -------------------------------------------------------------

    def _read_ready(self) -> None:
        for _ in range(_BATCHES_PER_WAKEUP):
            if not self._reading:
                return
            try:
                datagrams = self._receiver.receive()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._report(error)
                return
            if self._is_connected:
                self._last = datagrams[-1][1]
            self._in_batch = True
            try:
                self._deliver(datagrams)
            finally:
                leave()
                self._in_batch = False
                self._finish()
            if len(datagrams) < BATCH:
                return

    def _deliver(self, datagrams: list[tuple[bytes, Any]]) -> None:
        self._resolver.log_news()
        if self._resolver.missing != "peer":
            datagrams = self._known(datagrams)
        if self._received_all is not None:
            if datagrams and not self._closing:
                self._call(self._received_all, datagrams)
            return
        received = self._received
        for data, addr in datagrams:
            if self._closing:
                return
            enter(addr)
            try:
                received(data, addr)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._complain(error, received)

    def _known(self, datagrams: list[tuple[bytes, Any]]) -> list[tuple[bytes, Any]]:
        """Return the datagrams whose client is not unknown; see `missing`."""
        known = [item for item in datagrams if item[1].client.source != "none"]
        self._resolver.count_dropped(len(datagrams) - len(known))
        if self._resolver.missing == "raise":
            for _, addr in datagrams:
                if addr.client.source == "none":
                    self._report(UnknownClientError(addr.peer))
        return known

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            callback(*arguments)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._complain(error, callback)

    def _complain(self, error: BaseException, callback: Callable[..., object]) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"Exception in {getattr(callback, '__qualname__', callback)}",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    def _report(self, error: Exception) -> None:
        self._call(self._protocol.error_received, error)

    # ---- Sending ---------------------------------------------------------------

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram: to the peer of an `Addr`, or to a plain address."""
        if type(data) is not bytes:
            if not isinstance(data, (bytearray, memoryview, bytes)):
                raise TypeError(
                    f"data argument must be a bytes-like object, not {type(data).__name__!r}"
                )
            data = bytes(data)
        if self._closing:
            return
        if addr is None and self._last is not None:
            # Connected: what came last is what is answered, SPP with its header.
            data = self._resolver.route(self._last, table=False).header + data
        if type(addr) is Addr:
            put: Any = lib.uoa_sender_reply
            to = addr.native
        else:
            put = lib.uoa_sender_put
            to = ffi.NULL if addr is None else native_of(tuple(addr))
        if self._pending or not self._put(data, put, to):
            self._wait(data, put, to)
        elif not self._in_batch:
            self._flush()

    def _put(self, data: bytes, put: Any, to: Any) -> bool:
        """Queue in C; return whether there was room."""
        result = put(self._sender, data, len(data), to)
        if result == 0:
            return True
        if result == -errno.ENOBUFS:
            self._flush()
            result = put(self._sender, data, len(data), to)
        if result == -errno.ENOBUFS:
            return False
        if result < 0:
            self._report(error_of(result))
        return True

    def _flush(self) -> None:
        while (left := lib.uoa_sender_flush(self._sender)) < 0:
            self._report(error_of(left))
        if left and not self._writing:
            self._writing = True
            self._loop.add_writer(self._fd, self._write_ready)

    def _finish(self) -> None:
        """Send what is queued; a closing transport is done when nothing waits."""
        self._flush()
        if self._closing and not self._writing:
            self._loop.call_soon(self._connection_lost, None)

    def _wait(self, data: bytes, put: Any, to: Any) -> None:
        """Keep what finds the queue in C full."""
        self._pending.append((data, put, to))
        self._pending_bytes += len(data)
        if self._pending_bytes > self._limits[1] and not self._paused:
            self._paused = True
            self._call(self._protocol.pause_writing)

    def _write_ready(self) -> None:
        self._loop.remove_writer(self._fd)
        self._writing = False
        self._flush()
        while self._pending and not self._writing:
            # Taken out first: an error may be reported, and the protocol abort.
            data, put, to = self._pending.popleft()
            if not self._put(data, put, to):
                self._pending.appendleft((data, put, to))
                break
            self._pending_bytes -= len(data)
        if self._paused and self._pending_bytes <= self._limits[0]:
            self._paused = False
            self._call(self._protocol.resume_writing)
        self._finish()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for the socket to take them."""
        return self._pending_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low and high water marks."""
        return self._limits

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks at which the protocol is paused and resumed."""
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not 0 <= low <= high:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._limits = (low, high)

    # ---- Life ------------------------------------------------------------------

    def set_protocol(self, protocol: Any) -> None:
        """Replace the protocol: any object with the methods of a DatagramProtocol."""
        self._protocol = protocol
        self._received = protocol.datagram_received
        self._received_all = getattr(protocol, "datagrams_received", None)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """Return whether close() or abort() was called."""
        return self._closing

    def close(self) -> None:
        """Stop receiving, send what waits, then close."""
        if self._closing:
            return
        self.pause_reading()
        self._closing = True
        if not self._in_batch:
            self._finish()

    def abort(self) -> None:
        """Close at once; what waits to be sent is lost."""
        self.pause_reading()
        self._closing = True
        self._pending.clear()
        self._loop.call_soon(self._connection_lost, None)

    def _connection_lost(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        if self._writing:
            self._loop.remove_writer(self._fd)
        try:
            self._protocol.connection_lost(error)
        finally:
            self._receiver.close()
            ffi.release(self._sender)
            self._sock.close()
            if self._owns_resolver:
                self._resolver.close()


def _peername(sock: socket.socket) -> Any:
    try:
        return sock.getpeername()
    except OSError:
        return None


async def _open_socket(
    loop: asyncio.AbstractEventLoop,
    local_addr: tuple[str, int] | None,
    remote_addr: tuple[str, int] | None,
    family: int,
    proto: int,
    flags: int,
    reuse_port: bool | None,
    allow_broadcast: bool | None,
) -> socket.socket:
    """Return a bound, non-blocking UDP socket, with the loop's own arguments."""
    if local_addr is None and remote_addr is None and family == 0:
        raise ValueError("unexpected address family")

    async def resolve(addr: tuple[str, int] | None) -> list[Any]:
        if addr is None:
            return []
        return await loop.getaddrinfo(
            *addr[:2], family=family, type=socket.SOCK_DGRAM, proto=proto, flags=flags
        )

    locals_, remotes = await resolve(local_addr), await resolve(remote_addr)
    families = list(dict.fromkeys(info[0] for info in [*locals_, *remotes])) or [family]
    errors: list[OSError] = []
    for candidate in families:
        local = next((info[4] for info in locals_ if info[0] == candidate), None)
        remote = next((info[4] for info in remotes if info[0] == candidate), None)
        if (local_addr and local is None) or (remote_addr and remote is None):
            continue
        sock = socket.socket(candidate, socket.SOCK_DGRAM, proto)
        try:
            sock.setblocking(False)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if allow_broadcast:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.bind(local or ("", 0))
            if remote is not None:
                await loop.sock_connect(sock, remote)
        except OSError as error:
            sock.close()
            errors.append(error)
        else:
            return sock
    if errors:
        raise errors[0]
    raise ValueError("can not get address information")


async def create_datagram_endpoint(
    protocol_factory: Callable[[], asyncio.DatagramProtocol],
    local_addr: tuple[str, int] | None = None,
    remote_addr: tuple[str, int] | None = None,
    *,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    reuse_port: bool | None = None,
    allow_broadcast: bool | None = None,
    sock: socket.socket | None = None,
    resolver: Resolver | None = None,
    trust: str | Iterable[str] | None = None,
    view: View = "client",
) -> tuple[asyncio.DatagramTransport, asyncio.DatagramProtocol]:
    """Open a UDP endpoint whose protocol sees the client.

    The arguments before `resolver` are those of the loop's own
    create_datagram_endpoint(). `addr` in datagram_received() is an `Addr`: with
    view="client" it reads as the client, with view="peer" as what the socket
    saw. Both ways `addr.client` has the facts, and transport.sendto(data, addr)
    replies to the peer. A protocol that defines datagrams_received(list) gets
    whole batches of (data, addr) instead.

    Args:
        resolver: who resolves; it stays open when the transport closes.
        trust: a shorthand for `resolver=Resolver(trust)`.
        view: how `addr` reads.

    Raises:
        ConfigurationError: an argument is wrong.
        BackendError: the socket cannot be served; its text says why.
    """
    check_view(view)
    loop = asyncio.get_running_loop()
    modifiers = (local_addr, remote_addr, family, proto, flags, reuse_port, allow_broadcast)
    if sock is not None and any(modifiers):
        raise ValueError("socket modifier keyword arguments can not be used when sock is specified")
    chosen, is_own = choose_resolver(resolver, trust), resolver is None
    opened = None
    try:
        if sock is None:
            sock = opened = await _open_socket(loop, *modifiers)
        elif sock.type != socket.SOCK_DGRAM:
            raise ValueError(f"A datagram socket was expected, got {sock!r}")
        sock.setblocking(False)
        protocol = protocol_factory()
        transport = _Transport(loop, sock, protocol, chosen, view, is_own)
    except BaseException:
        if opened is not None:
            opened.close()
        if is_own:
            chosen.close()
        raise
    try:
        await asyncio.sleep(0)  # connection_made() comes first
    except BaseException:
        transport.close()
        raise
    return transport, protocol


async def serve(
    protocol_factory: Callable[[], asyncio.DatagramProtocol],
    host: str,
    port: int,
    *,
    resolver: Resolver | None = None,
    trust: str | Iterable[str] | None = None,
    view: View = "client",
    reuse_port: bool | None = None,
) -> None:
    """Serve a protocol on one address until cancelled.

    See create_datagram_endpoint() for the arguments and errors.
    """
    transport, _ = await create_datagram_endpoint(
        protocol_factory,
        (host, port),
        resolver=resolver,
        trust=trust,
        view=view,
        reuse_port=reuse_port,
    )
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        transport.close()
