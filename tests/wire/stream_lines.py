# SPDX-License-Identifier: MIT
"""What streams.c is asked: the starts of TCP connections, whole, cut short and damaged."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Final

from tests.reference.decoder import PPV2_SIGNATURE, address_text, as16, crc32c

SENDER: Final = bytes([10, 0, 0, 5])
"""Who sends all of them, as streams.c has it."""

_CLIENTS: Final = {
    1: (bytes([203, 0, 113, 7]), bytes([127, 0, 0, 1]), bytes(4)),
    2: (bytes.fromhex("20010db8000c00000000000000000007"), bytes(15) + b"\x01"),
}
_DAMAGED: Final = 20_000
_BYTES: Final = (0, 1, 2, 3, 0x10, 0x11, 0x12, 0x20, 0x21, 0x22, 0x31, 0xFF)


def _header(command: int, kinds: int, block: bytes) -> bytes:
    return PPV2_SIGNATURE + bytes([0x20 | command, kinds]) + struct.pack(">H", len(block)) + block


def _summed(header: bytes) -> bytes:
    """Return the header with a right checksum behind it."""
    length = len(header) - 16 + 7
    whole = header[:14] + struct.pack(">H", length) + header[16:] + b"\x03\x00\x04" + bytes(4)
    return whole[:-4] + struct.pack(">I", crc32c(whole))


def headers() -> Iterator[bytes]:
    """Yield headers of every command, family and transport, with and without TLVs."""
    for family in range(5):
        for transport in range(4):
            for client in _CLIENTS.get(family, (bytes(4),)):
                for port in (5555, 0):
                    ends = client + client[::-1] + struct.pack(">HH", port, 53)
                    for command in (0, 1, 2):
                        header = _header(command, family << 4 | transport, ends)
                        yield header
                        if command == 1:
                            yield _summed(header)
                            yield _header(1, family << 4 | transport, ends + b"\x04\x00\x01x")
    yield _header(0, 0, b"")
    yield _header(1, 0x11, b"")
    yield _header(1, 0x11, bytes(11))
    yield _header(1, 0x21, bytes(12))


def starts() -> Iterator[bytes]:
    """Yield the beginnings of streams."""
    rng = random.Random(1)
    right = list(headers())
    yield b""
    yield struct.pack(">H", 29) + bytes(29)  # a DNS query
    yield b"\r\n" + bytes(20)
    for header in right:
        yield header
        yield header + b"behind it"
    for length in range(len(right[0])):
        yield right[0][:length]
    for _ in range(_DAMAGED):
        damaged = bytearray(rng.choice(right))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(11, len(damaged))
            damaged[at] = rng.choice(_BYTES) if rng.random() < 0.7 else rng.randrange(256)
        yield bytes(damaged[: rng.choice((len(damaged), rng.randrange(len(damaged))))])


def line_of(start: bytes) -> str:
    """Return the line that asks about a start."""
    return start.hex() or "-"


def outcome(answer: str) -> dict[str, object] | int:
    """Return one answer in the words of decode_stream()."""
    wanted, _, rest = answer.partition(" ")
    if not rest:
        return int(wanted)
    reason, strip, client, port, vip, vip_port = rest.split()
    if reason != "found":
        return {"found": False, "reason": reason, "payload_strip": int(strip)}
    return {
        "found": True,
        "real_addr": _text(client),
        "real_port": int(port),
        "vip_addr": _text(vip),
        "vip_port": int(vip_port),
        "payload_strip": int(strip),
    }


def _text(address: str) -> str:
    packed = bytes.fromhex(address)
    short = packed[12:]
    return address_text(short if as16(short) == packed else packed)
