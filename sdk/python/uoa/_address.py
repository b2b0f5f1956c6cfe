# SPDX-License-Identifier: MIT
"""Addresses between Python and C.

Python: (host, port), IPv4 never in its mapped form, a link-local IPv6 host with
its scope as "fe80::1%2". C: `struct uoa_addr`, 16 bytes, IPv4 as ::ffff:a.b.c.d.
"""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from uoa._exceptions import ConfigurationError
from uoa._native import ffi

if TYPE_CHECKING:
    from collections.abc import Sequence

MAPPED = bytes(10) + b"\xff\xff"
_UNKNOWN = bytes(16)


def pack_host(host: str) -> tuple[bytes, int]:
    """Return the 16 bytes and the scope of an address in text form.

    Raises ConfigurationError for anything else, names included.
    """
    address, _, scope = host.partition("%")
    try:
        if ":" not in address:
            return MAPPED + socket.inet_pton(socket.AF_INET, address), 0
        packed = socket.inet_pton(socket.AF_INET6, address)
        number = int(scope) if scope.isdigit() else socket.if_nametoindex(scope) if scope else 0
    except (OSError, ValueError):  # A ValueError tells of a NUL.
        raise ConfigurationError(f"address {host!r}: not an IPv4 or IPv6 address") from None
    return packed, number


def unpack_host(packed: bytes, scope: int = 0) -> str:
    """Return the text form of 16 bytes: the opposite of pack_host()."""
    if packed.startswith(MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    text = socket.inet_ntop(socket.AF_INET6, packed)
    return f"{text}%{scope}" if scope else text


def to_native(address: Sequence[Any], native: Any = None) -> Any:
    """Return a `struct uoa_addr` for (host, port) or an IPv6 4-tuple of the socket module."""
    native = native if native is not None else ffi.new("struct uoa_addr *")
    packed, scope = pack_host(address[0])
    ffi.memmove(native.host, packed, 16)
    native.scope = address[3] if len(address) > 3 and address[3] else scope
    native.port = address[1]
    return native


def host_and_port(native: Any) -> tuple[str, int]:
    """Return (host, port) of a `struct uoa_addr`; :: is an address as good as any."""
    return unpack_host(bytes(ffi.buffer(native.host)), native.scope), native.port


def from_native(native: Any) -> tuple[str, int] | None:
    """Return (host, port) of a `struct uoa_addr`, or None if its host is not known."""
    return None if bytes(ffi.buffer(native.host)) == _UNKNOWN else host_and_port(native)


@lru_cache(maxsize=4096)
def to_sockaddr(address: tuple[str, int], is_ipv6_socket: bool) -> tuple[Any, ...]:
    """Return (host, port) as a socket of that family takes it and gives it: 4 items for IPv6."""
    host, port = address
    if not is_ipv6_socket:
        return host, port
    if ":" not in host:
        return f"::ffff:{host}", port, 0, 0
    host, _, scope = host.partition("%")
    return host, port, 0, int(scope or 0)


@lru_cache(maxsize=4096)
def native_of(address: tuple[Any, ...]) -> Any:
    """Return to_native(), remembered: for replies to addresses that are plain tuples."""
    return to_native(address)
