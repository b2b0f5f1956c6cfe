# SPDX-License-Identifier: MIT
"""Protocols that see the client on a transport that is not ours: asyncio's own, uvloop's.

Such a transport hands over payload and peer, and no ancillary data: that is
enough for headers in the payload and for asking the kernel.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, overload

from uoa._address import to_sockaddr
from uoa._arguments import check_view, choose_resolver, route_to
from uoa._client import Addr, View
from uoa._context import enter, restore
from uoa._exceptions import UnknownClientError, UOAError
from uoa._receiver import Resolving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uoa._resolver import Resolver


class _Transport(asyncio.DatagramTransport):
    """Another transport, whose sendto() answers clients through their balancers."""

    def __init__(self, shim: _Shim, inner: asyncio.DatagramTransport) -> None:
        super().__init__()
        self._shim = shim
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram: to the peer of an `Addr`, or to a plain address."""
        try:
            header, to = self._shim.route(addr)
        except UOAError as error:
            self._shim.protocol.error_received(error)
            return
        self._inner.sendto(header + data if header else data, to)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the other transport knows, and "uoa.resolver"."""
        if name == "uoa.resolver":
            return self._shim.resolver
        return self._inner.get_extra_info(name, default)

    def set_protocol(self, protocol: Any) -> None:
        """Replace the protocol that is wrapped."""
        self._shim.protocol = protocol

    def get_protocol(self) -> Any:
        """Return the protocol that is wrapped."""
        return self._shim.protocol

    def is_closing(self) -> bool:
        """Return whether close() or abort() was called."""
        return self._inner.is_closing()

    def close(self) -> None:
        """Send what waits, then close."""
        self._inner.close()

    def abort(self) -> None:
        """Close at once."""
        self._inner.abort()


class _Shim(asyncio.DatagramProtocol):
    """Stands between a transport and a protocol, and resolves what it hands over.

    Whatever else it is asked for is the protocol's.
    """

    def __init__(self, protocol: Any, make_resolver: Callable[[], Resolver], view: View) -> None:
        self.protocol = protocol
        self._make_resolver = make_resolver
        self._view = view
        self._has_table = view == "client"
        self._was_made = False

    def __getattr__(self, name: str) -> Any:
        # Only for what is not found here; `protocol` itself, before __init__(), is nowhere.
        if name == "protocol":
            raise AttributeError(name)
        return getattr(self.protocol, name)

    def connection_made(self, transport: Any) -> None:
        """Meet the socket, and hand the protocol a transport that knows the way back."""
        self.resolver = transport.get_extra_info("uoa.resolver")
        if self.resolver is None:
            try:
                self.resolver = self._make_resolver()
                self._meet(transport)
            except UOAError:
                transport.abort()
                raise
            transport = _Transport(self, transport)
        self._was_made = True
        self.protocol.connection_made(transport)

    def _meet(self, transport: Any) -> None:
        asker = self.resolver.meet(transport.get_extra_info("socket"), reads=False)
        host, port, *rest = transport.get_extra_info("sockname")
        self._is_ipv6 = bool(rest)
        self._local = ("::" if host == "0.0.0.0" else host, port)
        self._resolving = Resolving(self.resolver, asker, self._local, self._view, self._is_ipv6)
        self._is_connected = transport.get_extra_info("peername") is not None
        self._last: Addr | None = None

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Resolve one datagram; an `Addr` is what others have resolved."""
        if not isinstance(addr, Addr):
            try:
                data, addr = self._resolving.resolve(addr, data)
            except UOAError as error:
                self.protocol.error_received(error)
                return
            if self.resolver.missing != "peer" and addr.client.source == "none":
                self.resolver.count_dropped(1)
                if self.resolver.missing == "raise":
                    self.protocol.error_received(UnknownClientError(addr.peer))
                return
            self._last = addr
        token = enter(addr)
        try:
            self.protocol.datagram_received(data, addr)
        finally:
            restore(token)

    def route(self, address: Any) -> tuple[bytes, Any]:
        """Return what goes in front of a datagram for `address`, and where it is sent."""
        if address is None:
            # Connected to a balancer: what it sent last is what is answered.
            is_answer = self._is_connected and self._last is not None
            return self.resolver.route(self._last, table=False).header if is_answer else b"", None
        if type(address) is Addr and self.resolver.leads_back(address, table=self._has_table):
            return b"", to_sockaddr(address.peer, self._is_ipv6)
        route = route_to(self.resolver, self._view, address, self._local)
        if route is None:
            return b"", address
        return route.header, to_sockaddr(route.peer, self._is_ipv6)

    def error_received(self, exc: Exception) -> None:
        """Pass on."""
        self.protocol.error_received(exc)

    def pause_writing(self) -> None:
        """Pass on."""
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self.protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on, to a protocol that has seen the beginning."""
        if self._was_made:
            self.protocol.connection_lost(exc)


def shim_for(
    protocol: Any, make_resolver: Callable[[], Resolver], view: View
) -> asyncio.DatagramProtocol:
    """Return what to put between a transport and a protocol; the resolver is made if needed."""
    return _Shim(protocol, make_resolver, view)


@overload
def wrap(
    protocol_or_factory: Callable[[], asyncio.DatagramProtocol],
    *,
    resolver: Resolver | None = None,
    trust: str | Iterable[str] | None = None,
    view: View = "client",
) -> Callable[[], asyncio.DatagramProtocol]: ...
@overload
def wrap(
    protocol_or_factory: asyncio.DatagramProtocol,
    *,
    resolver: Resolver | None = None,
    trust: str | Iterable[str] | None = None,
    view: View = "client",
) -> asyncio.DatagramProtocol: ...
def wrap(
    protocol_or_factory: Any,
    *,
    resolver: Resolver | None = None,
    trust: str | Iterable[str] | None = None,
    view: View = "client",
) -> Any:
    """Let a protocol see the client on a transport of asyncio's or uvloop's own.

    For code whose call of loop.create_datagram_endpoint() cannot be replaced. A
    factory (a class or function) gives a factory, a protocol gives a protocol;
    what it does not define is the inner one's. `addr` in datagram_received() is
    an `Addr`, and the transport that connection_made() hands over answers it
    through its peer; the transport that the loop returns does not. Answers of a
    wildcard-bound socket leave from the address that the kernel picks.

    Such a transport gives payloads and peers only: backend "cmsg" is refused, and
    "auto" means proxy or sockopt. What cannot work is refused here, as far as a
    socket of its own can tell; later there is nobody to tell but the loop's
    exception handler, and the transport is aborted. On a transport that resolves
    already, nothing is done twice.

    Args:
        protocol_or_factory: what to wrap.
        resolver: who resolves; it stays open when the transport closes.
        trust: a shorthand for `resolver=Resolver(trust)`.
        view: how `addr` reads: "client", or "peer", as the socket saw it.

    Raises:
        ConfigurationError: an argument is wrong, or the backend needs to read the socket.
        BackendError: no backend works here; its text says what was tried.
    """
    check_view(view)
    chosen = choose_resolver(resolver, trust)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        chosen.meet(probe, reads=False)
    if not isinstance(protocol_or_factory, type) and hasattr(
        protocol_or_factory, "datagram_received"
    ):
        return _Shim(protocol_or_factory, lambda: chosen, view)
    return lambda: _Shim(protocol_or_factory(), lambda: chosen, view)
