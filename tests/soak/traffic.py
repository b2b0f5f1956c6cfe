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
from collections.abc import Sequence
from typing import Final, TypeVar

from uoa import wire

T = TypeVar("T")

_IPV6_DSTOPTS: Final = 59
_CLIENTS: Final = ("203.0.113.7", "2001:db8:c::7", "0.0.0.0", "127.0.0.1", "::1", "ff02::1")
_VIP: Final = ("198.51.100.80", 443)
_OPTIONS: Final = ("ipo", "ipo", "bd31", "bd30", "bd29")
_BYTES: Final = (0, 1, 2, 4, 6, 8, 12, 16, 18, 20, 36, 40, 0x1D, 0x1E, 0x1F, 0xFF)
_POOL: Final = 4096  # claims of each kind: to build one takes longer than to send it
# Below those that the kernel gives out: on one of the server's own its answers would come back.
_FIRST_PORT: Final = 20000
_IP: Final = struct.Struct(">BBHHHBBH4s4s")
_UDP: Final = struct.Struct(">HHHH")


def _claim(rng: random.Random, dialect: str, outer: int = 4) -> bytes:
    """Return a built claim: mostly acceptable, now and then of a client that cannot be."""
    host = rng.choice(_CLIENTS) if rng.random() < 0.2 else rng.choice(_CLIENTS[:2])
    port = 0 if rng.random() < 0.03 else rng.randrange(1, 65536)
    return wire.build(dialect, (host, port), vip=_VIP, vni=7, outer=outer)


def _options(rng: random.Random) -> bytes:
    """Return the option area of an IPv4 header: a claim, now and then two."""
    area = _claim(rng, rng.choice(_OPTIONS))
    return area + _claim(rng, "ipo") if len(area) <= 20 and rng.random() < 0.15 else area


def _destination_options(rng: random.Random) -> bytes:
    """Return an IPv6 Destination Options header with a claim, now and then with two."""
    header = bytearray(_claim(rng, rng.choice(_OPTIONS), 6))
    if len(header) <= 24 and rng.random() < 0.15:
        header += _claim(rng, "ipo", 6)[2:]
        header += bytes(-len(header) % 8)
        header[1] = len(header) // 8 - 1
    return bytes(header)


def _payload_header(rng: random.Random) -> bytes:
    """Return what stands in front of a payload, now and then nothing."""
    kind = rng.random()
    if kind < 0.02:
        return b""
    if kind < 0.05:
        return wire.build_local()
    if kind < 0.15:
        return _with_crc(_claim(rng, "ppv2"), right=rng.random() < 0.5)
    return _claim(rng, "spp" if kind < 0.3 else "ppv2")


def _with_crc(header: bytes, *, right: bool) -> bytes:
    body = header[16:] + b"\x03\x00\x04\x00\x00\x00\x00"
    whole = header[:14] + struct.pack(">H", len(body)) + body
    crc = 0xFFFFFFFF
    for byte in whole:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return whole[:-4] + struct.pack(">I", ~crc & 0xFFFFFFFF if right else 0)


def _passable(options: bytes) -> bytes:
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


class Traffic:
    """A seeded stream of datagrams from one sender's addresses to one server."""

    def __init__(self, seed: int, ipv4: str, ipv6: str, server: tuple[str, str, int, int]) -> None:
        """`server` is an IPv4 and an IPv6 host, the option port and the payload port."""
        rng = random.Random(seed)
        self._random, self._randbytes = rng.random, rng.randbytes
        self._options = [_options(rng) for _ in range(_POOL)]
        self._headers6 = [_destination_options(rng) for _ in range(_POOL)]
        self._payload_headers = [_payload_header(rng) for _ in range(_POOL)]
        server4, server6, self._port, payload_port = server
        self._to4, self._to6 = (server4, 0), (server6, self._port)
        self._payload_to = (server4, payload_port)
        self._hosts = socket.inet_aton(ipv4), socket.inet_aton(server4)
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._socks6 = [self._bound(socket.AF_INET6, ipv6) for _ in range(8)]
        self._socks4 = [self._bound(socket.AF_INET, ipv4) for _ in range(8)]
        self.mutated = 0
        """How many of the datagrams sent differ from what a balancer writes."""

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
        kind = self._random()
        if kind < 0.4:
            self._send_ipv4()
        elif kind < 0.7:
            self._send_ipv6()
        else:
            self._send_payload()

    def _below(self, limit: int) -> int:
        return int(self._random() * limit)

    def _pick(self, items: Sequence[T]) -> T:
        return items[int(self._random() * len(items))]

    def _maybe_damaged(self, data: bytes, first: int = 0) -> bytes:
        """Change up to three bytes of every other one, from index `first` on."""
        if self._random() < 0.5:
            return data
        changed = bytearray(data)
        while changed == data:
            for _ in range(1 + self._below(3)):
                at = first + self._below(len(data) - first)
                changed[at] = self._pick(_BYTES) if self._random() < 0.5 else self._below(256)
        return bytes(changed)

    def _send_ipv4(self) -> None:
        """An IPv4 packet of our own making: sendmsg() would judge its options."""
        built = self._pick(self._options)
        options = self._maybe_damaged(built)
        if options != built:
            options = _passable(options)
        self.mutated += options != built
        payload = self._randbytes(self._below(64))
        length = 20 + len(options)
        # The kernel fills in the checksum of the header; UDP does without.
        ip = _IP.pack(
            0x40 | length // 4, 0, length + 8 + len(payload), 0, 0, 64, 17, 0, *self._hosts
        )
        udp = _UDP.pack(_FIRST_PORT + self._below(64), self._port, 8 + len(payload), 0)
        self._raw.sendto(ip + options + udp + payload, self._to4)

    def _send_ipv6(self) -> None:
        built = self._pick(self._headers6)
        # Not the header's own length: the sending kernel checks that one.
        header = self._maybe_damaged(built, first=2)
        self.mutated += header != built
        self._pick(self._socks6).sendmsg(
            [self._randbytes(self._below(64))],
            [(socket.IPPROTO_IPV6, _IPV6_DSTOPTS, header)],
            0,
            self._to6,
        )

    def _send_payload(self) -> None:
        built = header = self._pick(self._payload_headers)
        if header:
            # Behind the signature: what does not have it is no header.
            header = self._maybe_damaged(built, first=12 if built.startswith(b"\r\n") else 2)
            self.mutated += header != built
        self._pick(self._socks4).sendto(header + self._randbytes(self._below(32)), self._payload_to)
