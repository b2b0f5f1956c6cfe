# SPDX-License-Identifier: MIT
"""A UDP socket whose recvfrom() tells the client, for code that reads sockets itself."""

from __future__ import annotations

import math
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, NoReturn, Self, overload

from uoa._address import MAPPED, pack_host, to_sockaddr
from uoa._arguments import check_view, choose_resolver, route_to
from uoa._client import Addr, Client, View
from uoa._exceptions import ConfigurationError, UnknownClientError
from uoa._receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

    from uoa._resolver import Resolver

_IP_PKTINFO = 8  # linux/in.h
_PACKET_INFO = {
    (socket.IPPROTO_IP, _IP_PKTINFO),
    (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO),
}
_MULTICAST = 0xFF  # the first byte of an IPv6 group
# Integers: to combine members of an enumeration costs as much as a system call.
_DONTWAIT = int(socket.MSG_DONTWAIT)
_NOT_UNDERSTOOD = ~int(socket.MSG_DONTWAIT | socket.MSG_WAITALL)  # datagrams come whole anyway


def _left(deadline: float) -> float:
    """Return how many seconds are left, or raise TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class _UnknownClientError(UnknownClientError, OSError):
    """UnknownClientError in a form that loops around recvfrom() survive."""


class Socket(socket.socket):
    """A UDP socket whose recvfrom() tells the client, and whose sendto() finds the way back.

    Everything else is `socket.socket`: it can be given to whatever takes a
    socket and calls its methods, such as `socketserver` or asyncio's own
    transport (not uvloop's, which takes the file descriptor and bypasses it).
    Several threads may use it at once.

    The address from recvfrom() is an `Addr`. A buffer size counts payload, never
    a header. With missing="drop" recvfrom() goes on to the next datagram, so that
    after select() it may still wait: set the socket non-blocking, as one should.
    With missing="raise" the UnknownClientError is an OSError too.

    Args:
        family: AF_INET (the default) or AF_INET6.
        type: SOCK_DGRAM, the default.
        proto: as in socket.socket.
        fileno: as in socket.socket.
        resolver: who resolves; it stays open when the socket closes.
        trust: a shorthand for `resolver=Resolver(trust)`.
        view: how addresses read: "client", or "peer", as the socket saw it.

    Raises:
        ConfigurationError: an argument is wrong, or the socket is not a UDP socket.
        BackendError: the backend cannot work; at the latest from bind().
    """

    def __init__(
        self,
        family: int = -1,
        type: int = -1,
        proto: int = -1,
        fileno: int | None = None,
        *,
        resolver: Resolver | None = None,
        trust: str | Iterable[str] | None = None,
        view: View = "client",
    ) -> None:
        check_view(view)
        self._idle: list[Receiver] = []
        self._local: tuple[str, int] | None = None
        self._last: Addr | Client | None = None
        self._view = view
        self._owns_resolver = resolver is None
        self._resolver = choose_resolver(resolver, trust)
        if fileno is None and type == -1:
            type = socket.SOCK_DGRAM
        super().__init__(family, type, proto, fileno)
        self._is_ipv6 = self.family == socket.AF_INET6
        try:
            self._check()
            if self.getsockname()[1]:
                self._prepare()
        except BaseException:
            if fileno is None:
                self.close()
            else:
                self.detach()  # It stays the caller's.
            raise

    @classmethod
    def from_socket(
        cls,
        sock: socket.socket,
        *,
        resolver: Resolver | None = None,
        trust: str | Iterable[str] | None = None,
        view: View = "client",
    ) -> Self:
        """Take over a socket, bound or not: `sock` is detached, unless this raises."""
        timeout = sock.gettimeout()
        self = cls(fileno=sock.fileno(), resolver=resolver, trust=trust, view=view)
        sock.detach()
        self.settimeout(timeout)
        return self

    @property
    def resolver(self) -> Resolver:
        """The resolver at work."""
        return self._resolver

    def _check(self) -> None:
        is_udp = self.family in (socket.AF_INET, socket.AF_INET6)
        if not is_udp or self.type != socket.SOCK_DGRAM:
            raise ConfigurationError(
                f"socket: {self.family!r}, {self.type!r}: only UDP sockets have datagrams "
                "with clients: take AF_INET or AF_INET6 and SOCK_DGRAM"
            )

    # ---- Receiving -------------------------------------------------------------

    def _prepare(self) -> None:
        """Ask the kernel for what the backend reads, before the first datagram comes."""
        self._forget()
        self._idle.append(Receiver(self, self._resolver, self._view, 1))

    def _forget(self) -> None:
        self._local = None
        while self._idle:
            self._idle.pop().close()

    def _receive(self, flags: int) -> tuple[bytes, Addr]:
        """Return one datagram, as soon as the socket's timeout allows."""
        if flags & _NOT_UNDERSTOOD:
            raise ConfigurationError(
                f"flags: {socket.MsgFlag(flags)!r}: a datagram is resolved once, when it is "
                "taken: only MSG_DONTWAIT is understood"
            )
        resolver = self._resolver
        deadline = None  # Most datagrams are there already.
        while True:
            try:
                data, addr = self._receive_one(flags)
            except InterruptedError:
                continue  # The signal's handler has run, and did not raise.
            except BlockingIOError:
                deadline = deadline or self._deadline(flags)
                if deadline is None:
                    raise
                self._wait(deadline)
                continue
            resolver.log_news()
            if resolver.missing == "peer" or addr.client.source != "none":
                self._last = addr
                return data, addr
            resolver.count_dropped(1)
            if resolver.missing == "raise":
                raise _UnknownClientError(addr.peer)
            deadline = deadline or self._deadline(flags)
            if deadline is not None:
                _left(deadline)

    def _deadline(self, flags: int) -> float | None:
        """Return until when a call that begins now may wait; None: not at all, or for ever."""
        timeout = 0 if flags & _DONTWAIT else self.gettimeout()
        return time.monotonic() + timeout if timeout else None

    def _receive_one(self, flags: int) -> tuple[bytes, Addr]:
        try:
            receiver = self._idle.pop()
        except IndexError:  # All are at work in other threads, or the socket is closed.
            self.getsockname()
            receiver = Receiver(self, self._resolver, self._view, 1)
        try:
            data, addr = receiver.receive_one(flags)
        finally:
            if self.fileno() < 0:
                receiver.close()
            else:
                self._idle.append(receiver)
        return data, addr

    def _wait(self, deadline: float) -> None:
        poller = select.poll()
        poller.register(self, select.POLLIN)
        poller.poll(math.ceil(_left(deadline) * 1000))

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Addr]:
        """Return a payload of at most `bufsize` bytes, and the `Addr` it is from."""
        if bufsize < 0:
            raise ValueError("negative buffersize in recvfrom")
        data, addr = self._receive(flags)
        return data[:bufsize], addr

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return a payload of at most `bufsize` bytes."""
        return self.recvfrom(bufsize, flags)[0]

    def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Addr]:
        """Put a payload into a buffer; return its length there, and the `Addr` it is from."""
        with memoryview(buffer).cast("B") as room:
            if nbytes < 0:
                raise ValueError("negative buffersize in recvfrom_into")
            if nbytes > len(room):
                raise ValueError("nbytes is greater than the length of the buffer")
            data, addr = self._receive(flags)
            count = min(len(data), nbytes or len(room))
            room[:count] = data[:count]
        return count, addr

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """Put a payload into a buffer; return its length there."""
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    def recvmsg(self, *_arguments: Any) -> NoReturn:
        """Refuse: the ancillary data is the resolver's."""
        raise NotImplementedError("recvmsg: uoa.Socket reads ancillary data itself: use recvfrom()")

    def recvmsg_into(self, *_arguments: Any) -> NoReturn:
        """Refuse: the ancillary data is the resolver's."""
        raise NotImplementedError(
            "recvmsg_into: uoa.Socket reads ancillary data itself: use recvfrom_into()"
        )

    # ---- Sending ---------------------------------------------------------------

    @overload
    def sendto(self, data: Buffer, address: Any, /) -> int: ...
    @overload
    def sendto(self, data: Buffer, flags: int, address: Any, /) -> int: ...
    def sendto(self, data: Buffer, *arguments: Any) -> int:
        """Send a datagram: to the peer of an `Addr`, or to a plain address."""
        if len(arguments) not in (1, 2):
            raise TypeError(f"sendto() takes 2 or 3 arguments ({1 + len(arguments)} given)")
        flags = arguments[0] if len(arguments) == 2 else 0
        address = arguments[-1]
        if (
            type(address) is Addr
            and self._bound()[0] != "::"
            and self._resolver.leads_back(address, table=self._view == "client")
        ):
            to = to_sockaddr(address.peer, self._is_ipv6)
            return super().sendto(data, flags, to)
        return self.sendmsg([data], (), flags, address)

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """Send a datagram on a connected socket."""
        return self.sendmsg([data], (), flags)

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """Send a datagram on a connected socket: it goes whole or not at all."""
        self.send(data, flags)

    def sendmsg(
        self,
        buffers: Iterable[Buffer],
        ancdata: Iterable[tuple[int, int, Buffer]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        """Send a datagram with ancillary data: to the peer of an `Addr`, or to a plain address."""
        header, local = b"", None
        if address is not None:
            route = route_to(self._resolver, self._view, address, self._bound())
            if route is not None:
                header, local = route.header, route.local
                address = to_sockaddr(route.peer, self._is_ipv6)
        elif self._last is not None:
            # Connected: what came last is what is answered.
            header = self._resolver.route(self._last, table=False).header
        control = [*ancdata]
        if local is not None and self._bound()[0] == "::":
            control += self._source(local, control)
        sent = super().sendmsg([header, *buffers] if header else buffers, control, flags, address)
        return sent - len(header)

    def _bound(self) -> tuple[str, int]:
        """Return the socket's own address; the host is "::" when it is bound to all of them."""
        if self._local is None:
            host, port, *_ = self.getsockname()
            bound = ("::" if host == "0.0.0.0" else host, port)
            if port == 0:
                return bound  # The first sendto() binds it.
            self._local = bound
        return self._local

    def _source(
        self, local: tuple[str, int], control: list[tuple[int, int, Buffer]]
    ) -> list[tuple[int, int, Buffer]]:
        """Return the control message that lets a datagram leave from `local`."""
        if any((level, kind) in _PACKET_INFO for level, kind, _ in control):
            return []
        packed, scope = pack_host(local[0])
        if packed.startswith(MAPPED):
            info = struct.pack("@I4s4x", 0, packed[12:])
            return [(socket.IPPROTO_IP, _IP_PKTINFO, info)]
        if not self._is_ipv6 or packed[0] == _MULTICAST:
            return []
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("@16sI", packed, scope))]

    # ---- Life ------------------------------------------------------------------

    def bind(self, address: Any, /) -> None:
        """Bind, and prepare to receive."""
        super().bind(address)
        self._prepare()

    def connect(self, address: Any, /) -> None:
        """Connect: to the peer of an `Addr`, or to a plain address."""
        super().connect(self._connectable(address))
        self._prepare()

    def connect_ex(self, address: Any, /) -> int:
        """Do as connect() does, and return an error number, 0 if there is none."""
        result = super().connect_ex(self._connectable(address))
        if result == 0:
            self._prepare()
        return result

    def _connectable(self, address: Any) -> Any:
        self._last = None
        if not isinstance(address, (Addr, Client)):
            return address
        self._last = address
        peer = self._resolver.route(address, table=self._view == "client").peer
        return to_sockaddr(peer, self._is_ipv6)

    def dup(self) -> Self:
        """Return a second socket on the same file, with the same resolver."""
        self._owns_resolver = False
        with socket.socket(fileno=socket.dup(self.fileno())) as twin:
            twin.settimeout(self.gettimeout())
            return self.from_socket(twin, resolver=self._resolver, view=self._view)

    def close(self) -> None:
        """Close, once files made by makefile() are closed too."""
        super().close()
        if self.fileno() < 0:
            self._end()

    def detach(self) -> int:
        """Give the file descriptor away, unresolved from now on."""
        fd = super().detach()
        self._end()
        return fd

    def _end(self) -> None:
        self._forget()
        if self._owns_resolver:
            self._resolver.close()
