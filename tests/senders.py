# SPDX-License-Identifier: MIT
"""Plain sockets that send as a balancer does: with the option beside the payload.

The bytes come from `uoa.wire.build`; the kernel puts them into the IP header.
That needs CAP_NET_RAW (tests.capability: "raw"), or a network namespace of one's
own.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

from uoa import wire

Address = tuple[str, int]

IP_RECVOPTS: Final = 6  # linux/in.h
IP_RETOPTS: Final = 7
IPV6_RECVDSTOPTS: Final = 58  # linux/in6.h
IPV6_DSTOPTS: Final = 59


def is_ipv6(host: str) -> bool:
    """Return whether datagrams to this address are IPv6 on the wire."""
    return ":" in host and not host.startswith("::ffff:")


def udp_socket(host: str, port: int = 0) -> socket.socket:
    """Return a UDP socket of the address's family, bound to it, that gives up after seconds."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(10)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def option_of(client: Address, end: Sequence[Any], dialect: str = "ipo") -> bytes:
    """Return the option that names `client`, for packets of the family of one of their ends."""
    return wire.build(dialect, client, outer=6 if is_ipv6(end[0]) else 4)


def received_option(option: bytes, peer: Sequence[Any]) -> tuple[int, int, bytes]:
    """Return the control message with which recvmsg() hands over an option from `peer`."""
    if is_ipv6(peer[0]):
        return socket.IPPROTO_IPV6, IPV6_DSTOPTS, option
    return socket.IPPROTO_IP, IP_RECVOPTS, option


def received_claim(
    client: Address, peer: Sequence[Any], dialect: str = "ipo"
) -> tuple[int, int, bytes]:
    """Return the control message of a datagram in which `peer` names `client`."""
    return received_option(option_of(client, peer, dialect), peer)


def send_option(
    sock: socket.socket, to: Sequence[Any], option: bytes, payload: bytes = b""
) -> None:
    """Send a datagram with these bytes in the option area of its IP header.

    Args:
        sock: where it leaves from.
        to: where it goes; its family is that of the packet.
        option: IPv4 options, or a whole IPv6 Destination Options header.
        payload: what the application gets.
    """
    if is_ipv6(to[0]):
        control = (socket.IPPROTO_IPV6, IPV6_DSTOPTS, option)
    else:
        control = (socket.IPPROTO_IP, IP_RETOPTS, option)
    sock.sendmsg([payload], [control], 0, tuple(to))


def send_claim(
    sock: socket.socket,
    to: Sequence[Any],
    client: Address,
    payload: bytes = b"",
    dialect: str = "ipo",
) -> None:
    """Send a datagram that names `client`, in an option or in front of the payload."""
    if dialect in ("ppv2", "spp"):
        sock.sendto(wire.build(dialect, client) + payload, tuple(to))
    else:
        send_option(sock, to, option_of(client, to, dialect), payload)


def asks_for_options(sock: Any) -> tuple[bool, bool]:
    """Return whether the kernel hands over the options of IPv4 and IPv6 packets on a socket."""
    ipv4 = sock.getsockopt(socket.IPPROTO_IP, IP_RECVOPTS)
    if sock.family != socket.AF_INET6:
        return bool(ipv4), False
    return bool(ipv4), bool(sock.getsockopt(socket.IPPROTO_IPV6, IPV6_RECVDSTOPTS))
