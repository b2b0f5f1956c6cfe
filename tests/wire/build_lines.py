# SPDX-License-Identifier: MIT
"""Talk to the harness builds.c: the bytes of a claim."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.wire import harness
from tests.wire.harness import DIALECT_NUMBERS, DIALECTS, address16

# Numbers of uoa.h.
OPTION, DST_OPTS, OPP, PAYLOAD, LOCAL, PACKET = range(6)
PARTS: Final = (OPTION, DST_OPTS, OPP, PAYLOAD, LOCAL)

CLIENTS: Final = {4: "203.0.113.77", 6: "2001:db8:cafe::77"}
VIPS: Final = {4: "198.51.100.10", 6: "2001:db8:f::10"}
SOURCES: Final = {4: "10.10.0.5", 6: "2001:db8:a::5"}
DESTINATIONS: Final = {4: "10.20.0.9", 6: "2001:db8:b::9"}
CLIENT_PORT: Final = 51234
VIP_PORT: Final = 443
VNI: Final = 0xABCDEF

# The payload of a packet of these addresses and ports whose checksum is 0, as two bytes.
CHECKSUM_0: Final = bytes.fromhex("2fdd")

# A number that no dialect has, and the one of no dialect.
UNKNOWN: Final = "unknown"
NONE: Final = "none"
NUMBERS: Final = {**DIALECT_NUMBERS, NONE: 0, UNKNOWN: 99}


class Build(NamedTuple):
    """What to build: families are 4 or 6, and 0 for no VIP."""

    part: int
    dialect: str
    family: int
    vip_family: int = 0
    source_family: int = 4
    destination_family: int = 4
    payload: bytes = b""
    room: int = 66000

    def line(self) -> str:
        """Return the line that asks for it."""
        vip = address16(VIPS[self.vip_family]) if self.vip_family else bytes(16)
        fields = (
            self.part,
            self.room,
            NUMBERS[self.dialect],
            self.family,
            address16(CLIENTS[self.family]).hex(),
            CLIENT_PORT,
            self.vip_family,
            vip.hex(),
            VIP_PORT if self.vip_family else 0,
            VNI,
            address16(SOURCES[self.source_family]).hex(),
            40001,
            address16(DESTINATIONS[self.destination_family]).hex(),
            8080,
            self.payload.hex() or "-",
        )
        return " ".join(map(str, fields))


def packets() -> list[Build]:
    """Return a packet of each dialect and family, with and without VIP and payload."""
    return [
        Build(PACKET, dialect, family, vip_family, outer, outer, payload)
        for dialect, family, vip_family, outer, payload in itertools.product(
            DIALECTS, (4, 6), (0, 4, 6), (4, 6), (b"", b"hello", bytes(range(256)))
        )
    ]


def parts() -> list[Build]:
    """Return each part for each dialect and family."""
    return [
        Build(part, dialect, family, family)
        for part, dialect, family in itertools.product(PARTS, DIALECTS, (4, 6))
    ]


def refused() -> list[Build]:
    """Return packets that cannot be.

    They are of two families, or longer than length fields can say, or no dialect has a form.
    """
    return [
        Build(PACKET, UNKNOWN, 4, 0, 4, 4),
        Build(PACKET, UNKNOWN, 4, 0, 6, 6),
        Build(OPTION, NONE, 4),
        Build(PACKET, "ipo", 4, 0, 4, 6),
        Build(PACKET, "ipo", 4, 0, 6, 4),
        Build(PACKET, "ipo", 4, payload=bytes(65536)),
        Build(PACKET, "ipo", 4, payload=bytes(65535 - 20 - 8 - 8 + 1)),
        Build(PACKET, "spp", 4, payload=bytes(65535 - 20 - 38 - 8 + 1)),
    ]


def plain() -> list[Build]:
    """Return packets without a claim; the UDP checksum of the last comes out as 0."""
    rnd = random.Random(1)
    # Sums of long payloads carry, and carry again.
    payloads = (b"hello", *(rnd.randbytes(60_000) for _ in range(16)), CHECKSUM_0)
    return [Build(PACKET, NONE, 4, payload=payload) for payload in payloads]


def build_all(program: Path, builds: Sequence[Build]) -> Iterator[tuple[Build, int, bytes]]:
    """Return for each what uoa_build() returned and wrote."""
    answers = harness.ask(program, [build.line() for build in builds])
    for build, answer in zip(builds, answers, strict=True):
        length, _, text = answer.partition(" ")
        yield build, int(length), b"" if text == "-" else bytes.fromhex(text)
