# SPDX-License-Identifier: MIT
"""What an application gets to see: `Client` and `Addr`."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from uoa._address import from_native, host_and_port, to_native, to_sockaddr
from uoa._native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

View = Literal["client", "peer"]


def names(function: Callable[[int], Any]) -> tuple[str | None, ...]:
    """Return all the names that a C function gives to the numbers from 0 on.

    Number 0 may be without a name.
    """
    found: list[str | None] = []
    while (name := function(len(found))) or not found:
        found.append(ffi.string(name).decode() if name else None)
    return tuple(found)


SOURCES = names(lib.uoa_source_name)
DIALECTS = names(lib.uoa_dialect_name)


@dataclass(frozen=True, slots=True)
class Client:
    """Who a datagram came from, and how that is known.

    There are three outcomes. `resolved`: a trusted peer named the client.
    `direct`: the peer is not a balancer, it *is* the client. Neither: a trusted
    peer made no usable claim, the client is **unknown** and `host` and `port`
    repeat the peer's. An unknown client's `host` is the balancer's: never decide
    access by it.
    """

    host: str
    """The client's address; IPv4 is never in its mapped form."""
    port: int
    peer: tuple[str, int]
    """Who physically sent the datagram: replies go there."""
    local: tuple[str, int] | None
    """Where the datagram arrived, if that is known."""
    source: str
    """The backend that told ("cmsg", "proxy", …), or "direct", or "none"."""
    dialect: str | None = None
    """The format the claim was made in, if there was one."""
    vip: tuple[str, int] | None = None
    """The address the client sent to, if the dialect carries it."""
    vni: int | None = None
    """The virtual network identifier of dialect bd29."""
    learned: float | None = None
    """time.monotonic() when the flow's claim was learned; None: in this datagram."""

    @property
    def resolved(self) -> bool:
        """Whether a trusted peer named the client."""
        return self.source not in ("direct", "none")

    @property
    def direct(self) -> bool:
        """Whether the peer is the client."""
        return self.source == "direct"

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The client's address as an object of the ipaddress module."""
        return ipaddress.ip_address(self.host)

    @property
    def age(self) -> float | None:
        """Seconds since the claim was learned; None if there is none."""
        if not self.resolved:
            return None
        return 0.0 if self.learned is None else time.monotonic() - self.learned


class Route(NamedTuple):
    """Where a reply goes, for a socket of one's own: see Resolver.route()."""

    peer: tuple[str, int]
    """Whom to send it to."""
    local: tuple[str, int] | None = None
    """The address its question came to, which it should leave from."""
    header: bytes = b""
    """What belongs in front of the payload: SPP wants its header on replies too."""


class Addr(tuple[Any, ...]):
    """An address that frameworks take for a tuple, and that knows both sides.

    In the client view it reads as the client, (host, port); in the peer view as
    what the socket saw, with four items for IPv6. `client` has all the facts.
    Equality, hash, copies and pickles are those of the visible tuple; a reply to
    either view goes to the peer.
    """

    client: Client
    _native: Any = None

    def __new__(cls, visible: tuple[Any, ...], client: Client) -> Addr:
        """Make the tuple `visible` carry `client`."""
        self = super().__new__(cls, visible)
        self.client = client
        return self

    @property
    def peer(self) -> tuple[str, int]:
        """Who physically sent the datagram."""
        return self.client.peer

    def __reduce__(self) -> tuple[type[Addr], tuple[tuple[Any, ...], Client]]:
        """Survive copy, deepcopy and pickle, without what belongs to this process."""
        return Addr, (tuple(self), self.client)

    @property
    def native(self) -> Any:
        """The client as `struct uoa_client *`, for the sockets of this package."""
        if self._native is None:
            self._native = native_client(self.client)
        return self._native


def native_client(client: Client) -> Any:
    """Return a `struct uoa_client *` for a Client: the opposite of client_of()."""
    native = ffi.new("struct uoa_client *")
    to_native((client.host, client.port), native.client)
    to_native(client.peer, native.peer)
    if client.local is not None:
        to_native(client.local, native.local)
    if client.vip is not None:
        to_native(client.vip, native.vip)
    native.source = SOURCES.index(client.source)
    native.dialect = DIALECTS.index(client.dialect)
    native.vni = client.vni or 0
    return native


def client_of(native: Any) -> Client:
    """Return the Client of a `struct uoa_client`."""
    dialect = DIALECTS[native.dialect]
    return Client(
        *host_and_port(native.client),
        host_and_port(native.peer),
        from_native(native.local),
        SOURCES[native.source] or "none",
        dialect,
        from_native(native.vip),
        native.vni if dialect == "bd29" else None,
        native.learned / 1e9 if native.learned else None,
    )


def addr_from(client: Client, view: View, is_ipv6_socket: bool) -> Addr:
    """Return the Addr of a client, as an application with `view` reads it."""
    if view == "client":
        return Addr((client.host, client.port), client)
    return Addr(to_sockaddr(client.peer, is_ipv6_socket), client)
