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
from typing import Final, NamedTuple, TypeVar

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
# Up to where in a random number which kind is sent: IPv4 and IPv6 options, then headers.
_SHARES: Final = {(True, True): (0.35, 0.6), (True, False): (0.6, 1.0), (False, True): (0.0, 0.0)}
_STREAM, _DGRAM = 1, 2  # the transports of PROXY headers
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
    if rng.random() < 0.05:  # of a length that no claim has, and that the stack lets pass
        return bytes([area[0], 4]) + area[2:4]
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
    return _claim(rng, "spp") if rng.random() < 0.15 else _proxy_header(rng, _DGRAM)


def stream_header(rng: random.Random) -> bytes:
    """Return what a balancer writes at the start of a TCP connection, now and then nothing."""
    return _proxy_header(rng, _STREAM)


def _proxy_header(rng: random.Random, transport: int) -> bytes:
    kind = rng.random()
    if kind < 0.06:
        return b""
    if kind < 0.15:
        return wire.build_local()
    header = bytearray(_claim(rng, "ppv2"))
    header[13] = header[13] & 0xF0 | transport
    if kind < 0.23:  # of no family, of another transport, or of sockets that are files
        header[13] = rng.choice((0x00, header[13] ^ _DGRAM ^ _STREAM, 0x31, 0x32))
    return _with_crc(header, right=rng.random() < 0.5) if kind > 0.8 else bytes(header)


def _with_crc(header: bytes | bytearray, *, right: bool) -> bytes:
    body = header[16:] + b"\x03\x00\x04\x00\x00\x00\x00"
    whole = bytes(header[:14]) + struct.pack(">H", len(body)) + body
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


class Target(NamedTuple):
    """Where a server is; 0 for a port that it does not have."""

    ipv4: str
    ipv6: str
    options: int
    """The port where claims are options, for IPv4 and IPv6."""
    payload: int
    """The port where they stand in front of the payload, for IPv4."""


class Damage:
    """A seeded source of damage to bytes."""

    def __init__(self, rng: random.Random) -> None:
        self.random, self.randbytes = rng.random, rng.randbytes

    def below(self, limit: int) -> int:
        """Return a number from 0 on."""
        return int(self.random() * limit)

    def pick(self, items: Sequence[T]) -> T:
        """Return one of them."""
        return items[int(self.random() * len(items))]

    def maybe(self, data: bytes, first: int = 0) -> bytes:
        """Change up to three bytes of every other one, from index `first` on."""
        if len(data) <= first or self.random() < 0.5:
            return data
        changed = bytearray(data)
        while changed == data:
            for _ in range(1 + self.below(3)):
                at = first + self.below(len(data) - first)
                changed[at] = self.pick(_BYTES) if self.random() < 0.5 else self.below(256)
        return bytes(changed)


class Traffic:
    """A seeded stream of datagrams from one sender's addresses to one server."""

    def __init__(
        self, seed: int, ipv4: str, ipv6: str, to: Target, payloads: Sequence[bytes] = ()
    ) -> None:
        """`payloads` are what the server's protocol is about; else they are random."""
        rng = random.Random(seed)
        self._damage = Damage(rng)
        self._random, self._pick = self._damage.random, self._damage.pick
        self._below, self._maybe_damaged = self._damage.below, self._damage.maybe
        self._payloads = payloads or [rng.randbytes(length) for length in range(64)]
        self._options = [_options(rng) for _ in range(_POOL)]
        self._headers6 = [_destination_options(rng) for _ in range(_POOL)]
        self._payload_headers = [_payload_header(rng) for _ in range(_POOL)]
        self._port = to.options
        self._to4, self._to6 = (to.ipv4, 0), (to.ipv6, to.options)
        self._payload_to = (to.ipv4, to.payload)
        self._shares = _SHARES[bool(to.options), bool(to.payload)]
        self._hosts = socket.inet_aton(ipv4), socket.inet_aton(to.ipv4)
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._socks6 = [self._bound(socket.AF_INET6, ipv6) for _ in range(8)]
        self._socks4 = [self._bound(socket.AF_INET, ipv4) for _ in range(8)]
        self.mutated = 0
        """How many claims of those sent differ from what a balancer writes."""

    @staticmethod
    def _bound(family: int, host: str) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind((host, 0))
        return sock

    def close(self) -> None:
        """Close all sockets."""
        for sock in (self._raw, *self._socks4, *self._socks6):
            sock.close()

    def send_one(self) -> int:
        """Send the next datagram, and return its length; half of the claims are damaged."""
        kind = self._random()
        ipv4, ipv6 = self._shares
        if kind < ipv4:
            return self._send_ipv4()
        if kind < ipv6:
            return self._send_ipv6()
        return self._send_payload()

    def _payload(self) -> bytes:
        """Return a payload: nothing, cut, damaged, or as it should be."""
        kind = self._random()
        if kind < 0.03:
            return b""
        payload = self._maybe_damaged(self._pick(self._payloads))
        return payload[: self._below(len(payload))] if kind < 0.1 else payload

    def _send_ipv4(self) -> int:
        """An IPv4 packet of our own making: sendmsg() would judge its options."""
        built = self._pick(self._options)
        options = self._maybe_damaged(built)
        if options != built:
            options = _passable(options)
        self.mutated += options != built
        payload = self._payload()
        length = 20 + len(options)
        # The kernel fills in the checksum of the header; UDP does without.
        ip = _IP.pack(
            0x40 | length // 4, 0, length + 8 + len(payload), 0, 0, 64, 17, 0, *self._hosts
        )
        # Port 0 is legal for who wants no answer, and no address to send one to.
        port = _FIRST_PORT + self._below(64) if self._random() < 0.99 else 0
        udp = _UDP.pack(port, self._port, 8 + len(payload), 0)
        return self._raw.sendto(ip + options + udp + payload, self._to4)

    def _send_ipv6(self) -> int:
        built = self._pick(self._headers6)
        # Not the header's own length: the sending kernel checks that one.
        header = self._maybe_damaged(built, first=2)
        self.mutated += header != built
        return self._pick(self._socks6).sendmsg(
            [self._payload()], [(socket.IPPROTO_IPV6, _IPV6_DSTOPTS, header)], 0, self._to6
        )

    def _send_payload(self) -> int:
        built = header = self._pick(self._payload_headers)
        if header:
            # Behind the signature: what does not have it is no header.
            header = self._maybe_damaged(built, first=12 if built.startswith(b"\r\n") else 2)
            if self._random() < 0.03:
                header = header[: self._below(len(header))]
            self.mutated += header != built
        payload = b"" if len(header) < len(built) else self._payload()
        return self._pick(self._socks4).sendto(header + payload, self._payload_to)
