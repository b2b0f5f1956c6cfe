# SPDX-License-Identifier: MIT
"""What the protocols behind the adapters are asked, well-formed and not, up to 64 KiB.

Each function returns a pool that Traffic draws from; it damages half of what it draws.
"""

from __future__ import annotations

import random
import ssl
import struct
from collections.abc import Callable, Sequence
from typing import Final

import dnslib
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from tests.frameworks.quic import NAME

_LARGEST: Final = 65_400  # bytes, with which the longest header fits into a datagram
_SMALLEST_INITIAL: Final = 1200
_QUIC_1: Final = 1
_TYPES: Final = ("TXT", "A", "AAAA", "ANY", "SOA", "OPT")


def anything(rng: random.Random) -> list[bytes]:
    """Return bytes of all lengths, some of them as long as a datagram can be."""
    lengths = [rng.randrange(1500) for _ in range(240)] + [_LARGEST, 60_000, 40_000, 9000]
    return [rng.randbytes(length) for length in lengths]


def dns(rng: random.Random) -> list[bytes]:
    """Return queries, messages that are none, and what only looks like one."""

    def name() -> str:
        labels = ("".join(rng.choices("abcxyz019-_", k=rng.randrange(1, 40))) for _ in range(4))
        return ".".join(labels)

    def query() -> bytes:
        record = dnslib.DNSRecord.question(name(), rng.choice(_TYPES))
        if rng.random() < 0.3:
            record.add_ar(dnslib.EDNS0(udp_len=rng.choice((0, 512, 1232, 65535))))
        packed: bytes = record.pack()
        return packed

    def header(flags: int, *counts: int) -> bytes:
        return struct.pack(">HHHHHH", rng.randrange(65536), flags, *counts)

    answer = dnslib.DNSRecord.parse(query()).reply()
    answer.add_answer(*dnslib.RR.fromZone(f"{name()} 60 TXT {'x' * 255}"))
    strange = [
        answer.pack(),
        header(0x0100, 1, 0, 0, 0) + b"\xc0\x0c\x00\x10\x00\x01",  # a name that is its own end
        header(0x0100, 1, 0, 0, 0) + b"\xc0\x0e\xc0\x0c\x00\x10\x00\x01",
        header(0x0100, 1, 0, 0, 0) + b"\x3f" + b"a" * 10,
        header(0x0100, 1, 0, 0, 0) + b"\x04\xff\xfe\x80\x00\x00\x00\x10\x00\x01",  # no text
        header(0x0100, 0, 0, 0, 0),  # asks nothing
        # A name that is too long, and a label.
        header(0x0100, 1, 0, 0, 0) + b"\x3c" + b"\x3c".join([b"a" * 60] * 6) + b"\0\0\x10\0\x01",
        header(0x0100, 1, 0, 0, 0) + b"\x7c" + b"a" * 124 + b"\0\0\x10\0\x01",
        header(0x2800, 1, 0, 1, 0) + query()[12:],  # UPDATE
        header(0x7800, 1, 0, 0, 0) + query()[12:],  # an opcode that nobody uses
        header(0x0100, 65535, 65535, 65535, 65535) + query()[12:] * 4,
        header(0x0100, 1000, 0, 0, 0) + b"".join(query()[12:] for _ in range(500)),
        query() + rng.randbytes(_LARGEST - 512),
    ]
    return [query() for _ in range(200)] + strange * 2 + [rng.randbytes(n) for n in range(40)]


def syslog(rng: random.Random) -> list[bytes]:
    """Return messages of both RFCs, of all lengths, and what resembles them."""

    def text() -> bytes:
        length = rng.choice((20, 80, 400, 1024, 2048))
        return bytes(rng.choices(b"abc xyz[]=\"\\'<>:%\n\x00\xff\xc3\xa4", k=length))

    def rfc3164() -> bytes:
        day, pid = rng.randrange(1, 32), rng.randrange(99999)
        head = f"<{rng.randrange(200)}>Nov {day:2} 07:0{rng.randrange(10)}:00 host app[{pid}]: "
        return head.encode() + text()

    def rfc5424() -> bytes:
        data = "".join(f'[x@{n} a="{"v" * n}\\]" b="\\""]' for n in range(rng.randrange(6))) or "-"
        head = f"<{rng.randrange(192)}>1 2026-11-28T07:00:0{rng.randrange(10)}.5Z host app "
        return f"{head}- ID {data} ".encode() + text()

    long = [rfc3164() + b"x" * _LARGEST, rfc5424() + b"y" * _LARGEST, b"<14>1 " * 20_000]
    long += [b"<14>1 - - - - - " + b'[x a="\\]"' * 8000, b"<14>" + b"[" * _LARGEST, b" " * _LARGEST]
    return [
        *(make() for _ in range(120) for make in (rfc3164, rfc5424)),
        *(message[:_LARGEST] for message in long),
        *(rng.randbytes(1 + n * 30) for n in range(30)),
        b"<", b"<14>", b"<999>x", b"<14>1", b"<14>1 ", b"\x00", b"\n",
    ]  # fmt: skip


def quic(alpn: Sequence[str]) -> Callable[[random.Random], list[bytes]]:
    """Return a pool of Initial packets of a real handshake, and of headers with junk behind."""

    def pool(rng: random.Random) -> list[bytes]:
        return [
            *(initial for _ in range(48) for initial in _initials(alpn)),
            *(_long_header(rng) for _ in range(80)),
            *(bytes([0x40 | rng.randrange(64)]) + rng.randbytes(8 + n * 12) for n in range(60)),
            *(rng.randbytes(n) for n in range(1, 40)),
            rng.randbytes(_LARGEST),
        ]

    return pool


def _initials(alpn: Sequence[str]) -> list[bytes]:
    """Return what a client sends first."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=list(alpn), server_name=NAME, verify_mode=ssl.CERT_NONE
    )
    connection = QuicConnection(configuration=configuration)
    connection.connect(("server", 443), now=0.0)
    return [data for data, _ in connection.datagrams_to_send(now=0.0)]


def _long_header(rng: random.Random) -> bytes:
    """Return a packet with a long header, mostly a valid one, and random bytes behind."""
    version = rng.choice((_QUIC_1, _QUIC_1, _QUIC_1, 0, 0x6B3343CF, 0x0A0A0A0A, 0xFFFFFFFF))
    ids = b""
    for _ in range(2):
        length = rng.choice((0, 8, 8, 8, 20, 21, 255))
        ids += bytes([length]) + rng.randbytes(min(length, 21))
    kind = rng.choice((0x00, 0x00, 0x10, 0x20, 0x30))  # Initial, 0-RTT, Handshake, Retry
    token = b"\x00" if rng.random() < 0.5 else b"\x08" + rng.randbytes(8)
    size = rng.choice((20, _SMALLEST_INITIAL, _SMALLEST_INITIAL, 1400))
    body = rng.randbytes(size)
    coded = struct.pack(">H", 0x4000 | (size if rng.random() < 0.8 else rng.randrange(0x4000)))
    first = bytes([0xC0 | kind | rng.randrange(16)])
    return first + struct.pack(">I", version) + ids + (b"" if kind else token) + coded + body
