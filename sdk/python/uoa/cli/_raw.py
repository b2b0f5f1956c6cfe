# SPDX-License-Identifier: MIT
"""Raw sockets: whether this process may have one, and opp, which only they can send."""

from __future__ import annotations

import socket

from uoa import wire

PROTO_OPP = 248
_PROTO_RAW = 255  # a raw socket of it asks for the right to have one, nothing else


def is_allowed() -> bool:
    """Whether this process has CAP_NET_RAW, which IP options need as well."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, _PROTO_RAW).close()
    except PermissionError:
        return False
    return True


class OppSocket:
    """Sends behind opp headers, in the name of a UDP socket that owns the port.

    What comes back goes to that UDP socket: nothing is read here.
    """

    def __init__(self, udp: socket.socket) -> None:
        """Stand beside a connected UDP socket.

        Raises:
            OSError: PermissionError without CAP_NET_RAW.
        """
        src, dst = udp.getsockname(), udp.getpeername()
        self._src, self._dst = src[:2], dst[:2]
        self._ip_length = 40 if ":" in src[0] else 20
        self._to = (dst[0], 0, *dst[2:])
        self._raw = socket.socket(udp.family, socket.SOCK_RAW, PROTO_OPP)
        try:
            # The UDP checksum counts on the source address.
            self._raw.bind((src[0], 0, *src[2:]))
        except OSError:
            self._raw.close()
            raise

    def close(self) -> None:
        """Close the raw socket; the UDP socket is its owner's."""
        self._raw.close()

    def send(self, header: bytes, payload: bytes) -> None:
        """Send one datagram: IP, `header`, UDP, `payload`.

        Raises:
            WireError: no UDP datagram is that long.
            OSError: the kernel refuses it.
        """
        packet = wire.build(None, src=self._src, dst=self._dst, payload=payload)
        self._raw.sendto(header + packet[self._ip_length :], self._to)
