# SPDX-License-Identifier: MIT
"""How an ordinary socket sends one datagram with an option: needs CAP_NET_RAW."""

import socket

_IP_RETOPTS = 7  # linux/in.h: the IPv4 options of one datagram
_IPV6_DSTOPTS = 59  # linux/in6.h: its Destination Options header


def options(part: bytes, outer: int) -> list[tuple[int, int, bytes]]:
    """Return the control messages for sendmsg(): IPv4 options, or an IPv6 header."""
    if not part:
        return []
    if outer == 4:
        return [(socket.IPPROTO_IP, _IP_RETOPTS, part)]
    return [(socket.IPPROTO_IPV6, _IPV6_DSTOPTS, part)]
