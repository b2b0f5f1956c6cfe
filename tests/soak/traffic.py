# SPDX-License-Identifier: MIT
"""Datagrams whose claims are damaged, and whose headers still pass the stack.

A mutation touches the option area, the Destination Options header or the PROXY
and SPP bytes. Addresses, lengths and checksums are valid afterwards: of packets
damaged anywhere only a few in a hundred would reach a socket.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable

from uoa import wire

_IPV6_DSTOPTS = 59
_CLIENTS = ("203.0.113.7", "2001:db8:c::7", "0.0.0.0", "127.0.0.1", "::1", "ff02::1")
_OPTIONS = ("ipo", "ipo", "bd31", "bd30", "bd29")
_BYTES = (0, 1, 2, 4, 6, 8, 12, 16, 18, 20, 36, 40, 0x1D, 0x1E, 0x1F, 0xFF)

Send = Callable[[], None]


def _claim(rng: random.Random, dialect: str, outer: int) -> bytes:
    """Return a built claim: mostly acceptable, now and then of a client that cannot be."""
    host = rng.choice(_CLIENTS) if rng.random() < 0.2 else rng.choice(_CLIENTS[:2])
    port = 0 if rng.random() < 0.03 else rng.randrange(1, 65536)
    return wire.build(dialect, (host, port), vip=("198.51.100.80", 443), vni=7, outer=outer)


def _damage(rng: random.Random, data: bytes, first: int = 0) -> bytes:
    """Change up to three bytes, from index `first` on."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(first, len(changed))
        changed[at] = rng.choice(_BYTES) if rng.random() < 0.5 else rng.randrange(256)
    return bytes(changed)


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


class Traffic:
    """A seeded stream of datagrams from one sender's addresses to one server."""

    def __init__(self, seed: int, ipv4: str, ipv6: str, server: tuple[str, str, int, int]) -> None:
        """`server` is an IPv4 and an IPv6 host, the option port and the payload port."""
        self._rng = random.Random(seed)
        self._ipv4, self._ipv6 = ipv4, ipv6
        self._server4, self._server6, self._port, self._payload_port = server
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._socks6 = [self._bound(socket.AF_INET6, ipv6) for _ in range(8)]
        self._socks4 = [self._bound(socket.AF_INET, ipv4) for _ in range(8)]

    @staticmethod
    def _bound(family: int, host: str) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind((host, 0))
        return sock

    def close(self) -> None:
        """Close all sockets."""
        for sock in (self._raw, *self._socks4, *self._socks6):
            sock.close()

    def send_one(self) -> None:
        """Send the next datagram; half of them are damaged."""
        kind = self._rng.random()
        if kind < 0.4:
            self._send_ipv4()
        elif kind < 0.7:
            self._send_ipv6()
        else:
            self._send_payload()

    def _send_ipv4(self) -> None:
        """An IPv4 packet of our own making: sendmsg() would judge its options."""
        rng = self._rng
        options = _claim(rng, rng.choice(_OPTIONS), 4)
        if len(options) <= 20 and rng.random() < 0.15:
            options += _claim(rng, "ipo", 4)
        options = options[:40]
        if rng.random() < 0.5:
            options = self._passable(_damage(rng, options))
        header_length = 20 + len(options)
        payload = rng.randbytes(rng.randrange(0, 64))
        sport = 40000 + rng.randrange(64)
        udp = struct.pack(">HHHH", sport, self._port, 8 + len(payload), 0) + payload
        header = struct.pack(
            ">BBHHHBBH4s4s",
            0x40 | header_length // 4, 0, header_length + len(udp), 0, 0, 64, 17, 0,
            socket.inet_aton(self._ipv4), socket.inet_aton(self._server4),
        )  # fmt: skip
        header += options
        header = header[:10] + struct.pack(">H", _checksum(header)) + header[12:]
        self._raw.sendto(header + udp, (self._server4, 0))

    def _passable(self, options: bytes) -> bytes:
        """Turn what the receiving stack drops into NOPs: structure, and known options."""
        area = bytearray(options)
        at = 0
        while at < len(area):
            kind = area[at]
            if kind == 0:
                break
            fits = at + 1 < len(area) and 2 <= area[at + 1] <= len(area) - at
            if kind == 1 or not fits or kind in (7, 68, 130, 131, 134, 136, 137, 148):
                area[at] = 1
                at += 1
            else:
                at += area[at + 1]
        return bytes(area)

    def _send_ipv6(self) -> None:
        rng = self._rng
        header = bytearray(_claim(rng, rng.choice(_OPTIONS), 6))
        if rng.random() < 0.15 and len(header) <= 24:
            second = _claim(rng, "ipo", 6)
            header += second[2:]
            header += bytes(-len(header) % 8)
            header[1] = len(header) // 8 - 1
        if rng.random() < 0.5:
            # Not the header's own length: the sending kernel checks that one.
            header = bytearray(_damage(rng, bytes(header), first=2))
        control = [(socket.IPPROTO_IPV6, _IPV6_DSTOPTS, bytes(header))]
        rng.choice(self._socks6).sendmsg(
            [rng.randbytes(rng.randrange(0, 64))], control, 0, (self._server6, self._port)
        )

    def _send_payload(self) -> None:
        rng = self._rng
        kind = rng.random()
        if kind < 0.03:
            header = b""
        elif kind < 0.05:
            header = wire.build_local()
        elif kind < 0.15:
            header = self._with_crc(_claim(rng, "ppv2", 4), right=rng.random() < 0.5)
        else:
            header = _claim(rng, "ppv2", 4)
        if header and rng.random() < 0.5:
            # Mostly behind the signature: what does not have it is no header.
            header = _damage(rng, header, first=12)
        rng.choice(self._socks4).sendto(
            header + rng.randbytes(rng.randrange(0, 32)), (self._server4, self._payload_port)
        )

    @staticmethod
    def _with_crc(header: bytes, *, right: bool) -> bytes:
        body = header[16:] + b"\x03\x00\x04\x00\x00\x00\x00"
        whole = header[:14] + struct.pack(">H", len(body)) + body
        crc = 0xFFFFFFFF
        for byte in whole:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        return whole[:-4] + struct.pack(">I", ~crc & 0xFFFFFFFF if right else 0)
