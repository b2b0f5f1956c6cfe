# SPDX-License-Identifier: MIT
"""The parser against the reference, over packets that are built from their parts.

The mutator changes packets that exist; this builds packets that no vector resembles. Every length
is right most of the time and wrong some of the time. UOA_FUZZ_EXAMPLES says how many there are,
pytest's --hypothesis-show-statistics what became of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.capability import need
from tests.reference import decoder
from tests.wire import harness
from tests.wire.build import OPTIMISED, build

EXAMPLES = int(os.environ.get("UOA_FUZZ_EXAMPLES", "2000"))

MAPPED = bytes(10) + b"\xff\xff"
CLIENT4 = bytes.fromhex("cb00714d")
CLIENT6 = bytes.fromhex("20010db8cafe00000000000000000077")
STRANGE4 = tuple(
    bytes.fromhex(text)
    for text in ("cb00714e", "00000000", "7f000001", "e0000001", "ffffffff", "f0000001")
)
STRANGE6 = (
    *(MAPPED + host for host in STRANGE4),
    *(bytes(15) + bytes((last,)) for last in (0, 1, 2)),
    bytes.fromhex("ff020000000000000000000000000001"),
    bytes.fromhex("0064ff9b0000000000000000cb00714d"),
)
HOSTS4 = st.sampled_from((CLIENT4,) * 40 + STRANGE4)
HOSTS6 = st.sampled_from((CLIENT6,) * 30 + (MAPPED + CLIENT4,) * 30 + STRANGE6)
SOURCES4 = (bytes.fromhex("0a0a0005"), bytes.fromhex("7f000001"), bytes.fromhex("c0000201"))
SOURCES6 = (
    bytes.fromhex("20010db8000a00000000000000000005"),
    bytes(15) + b"\x01",
    MAPPED + SOURCES4[0],
)
TRUSTED = (
    *(None,) * 12,
    (),
    ("10.10.0.0/16", "2001:db8:a::/48", "127.0.0.0/8", "::1/128"),
    ("0.0.0.0/0",),
    ("::/0",),
)
OPTION_TYPES = (*(0x1F,) * 8, *(0x1E,) * 4, *(0x1D,) * 4, 0x00, 0x01, 0x01, 0x9F)
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

PORTS: st.SearchStrategy[int] = st.sampled_from((51234,) * 20 + (51235, 0, 65535))

# How wrong a length is: mostly not at all.
ERRORS: st.SearchStrategy[int] = st.sampled_from((0,) * 120 + (-8, -4, -1, 1, 4, 8, 255))


def off(draw: st.DrawFn, right: int, bits: int) -> bytes:
    """Return a length of some bits as bytes, mostly the right one."""
    return (right + draw(ERRORS) & (1 << bits) - 1).to_bytes(bits // 8, "big")


def port(draw: st.DrawFn) -> bytes:
    """Return a client's port, seldom 0."""
    return draw(PORTS).to_bytes(2, "big")


def claim(draw: st.DrawFn, kind: int, size: int) -> bytes:
    """Return what stands behind the leading octets of an option of ours."""
    host = draw(HOSTS4 if size == 4 else HOSTS6)
    form = draw(st.sampled_from(("address", "both"))) if kind == 0x1F else "both"
    if kind == 0x1D:
        return (
            draw(st.binary(min_size=4, max_size=4))
            + port(draw)
            + bytes(2)
            + host
            + (bytes(4) if size == 16 else b"")
        )
    if form == "address":
        return port(draw) + host
    return port(draw) + b"\x01\xbb" + host + draw(HOSTS4 if size == 4 else HOSTS6)


@st.composite
def options(draw: st.DrawFn, ipv6: bool, opp: bool = False) -> bytes:
    """Build one option, or padding."""
    kind = draw(st.sampled_from(OPTION_TYPES))
    if kind == 0 or (kind == 1 and not ipv6):
        return bytes((kind,))
    if kind not in (0x1F, 0x1E, 0x1D):
        data = draw(st.binary(max_size=6))
    else:
        size = draw(st.sampled_from((4, 16)))
        data = claim(draw, kind, size)
        if not ipv6 and not opp and len(data) not in (6, 18):
            right = int(size == 16)
            data = bytes((draw(st.sampled_from((right,) * 9 + (0, 1, 2))), 0)) + data
    lead = 0 if ipv6 else 2
    return bytes((kind,)) + off(draw, len(data) + lead, 8) + data


@st.composite
def option_areas(draw: st.DrawFn, ipv6: bool, opp: bool = False) -> bytes:
    """Build an option area, not yet padded."""
    least = draw(st.sampled_from((0, 1, 1, 1)))
    return b"".join(draw(st.lists(options(ipv6, opp), min_size=least, max_size=3)))


@st.composite
def proxies(draw: st.DrawFn) -> bytes:
    """Build a PROXY v2 header with TLVs, its checksum mostly right."""
    size = draw(st.sampled_from((4, 16)))
    hosts = HOSTS4 if size == 4 else HOSTS6
    block = draw(hosts) + draw(hosts) + port(draw) + b"\x01\xbb"
    crc_at = 0
    for kind in draw(st.lists(st.sampled_from((0x03, 0x03, 0x04, 0xE0)), max_size=3)):
        value = bytes(4) if kind == 0x03 else draw(st.binary(max_size=5))
        if kind == 0x03:
            crc_at = 16 + len(block) + 3
        block += bytes((kind,)) + off(draw, len(value), 16) + value
    command = draw(st.sampled_from((0x21,) * 8 + (0x20, 0x22, 0x11)))
    family = draw(st.sampled_from(((0x12 if size == 4 else 0x22),) * 8 + (0x00, 0x11, 0x32, 0x40)))
    header = bytearray(SIGNATURE + bytes((command, family)) + off(draw, len(block), 16) + block)
    if crc_at and draw(st.integers(0, 4)):
        header[crc_at : crc_at + 4] = decoder.crc32c(bytes(header)).to_bytes(4, "big")
    return bytes(header)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Build a payload, with or without a header in front, cut or not."""
    kind = draw(st.sampled_from(("plain", "plain", "plain", "proxy", "proxy", "spp")))
    payload = draw(st.binary(max_size=8))
    if kind == "proxy":
        payload = draw(proxies()) + payload
    elif kind == "spp":
        hosts = draw(HOSTS6) + draw(HOSTS6)
        payload = b"\x56\xec" + hosts + port(draw) + b"\x01\xbb" + payload
    if draw(st.integers(0, 11)) == 0:
        payload = payload[: draw(st.integers(0, len(payload)))]
    return payload


@st.composite
def transports(draw: st.DrawFn) -> tuple[int, bytes]:
    """Build UDP with its payload, or opp in front of it; return the protocol as well."""
    payload = draw(payloads())
    ports = b"\x9c\x41\x1f\x90"
    udp = ports + off(draw, 8 + len(payload), 16) + bytes(2) + payload
    if draw(st.integers(0, 3)):
        return draw(st.sampled_from((17,) * 15 + (6,))), udp
    area = draw(option_areas(ipv6=False, opp=True))
    area += bytes(-len(area) % 4)
    version = draw(st.sampled_from((0x10, 0x20) * 6 + (0x00, 0x11, 0x30)))
    inner = draw(st.sampled_from((17,) * 11 + (6, 248)))
    return 248, bytes((version, inner)) + off(draw, 4 + len(area), 16) + area + udp


@st.composite
def packets4(draw: st.DrawFn) -> bytes:
    """Build an IPv4 packet."""
    protocol, rest = draw(transports())
    area = draw(option_areas(ipv6=False))[:40]
    area += bytes(-len(area) % 4)
    header_len = 20 + len(area)
    ihl = header_len // 4 if draw(st.integers(0, 24)) else draw(st.integers(0, 15))
    fragment = draw(st.sampled_from((0x0000,) * 20 + (0x4000, 0x2000, 0x2001, 0x0001)))
    return b"".join(
        (
            bytes((0x40 | ihl & 15, 0)),
            off(draw, header_len + len(rest), 16),
            bytes(2) + fragment.to_bytes(2, "big"),
            bytes((64, protocol)) + bytes(2),
            draw(st.sampled_from(SOURCES4)) + bytes.fromhex("0a140009"),
            area + rest,
        )
    )


@st.composite
def extension_headers(draw: st.DrawFn, kind: int) -> bytearray:
    """Build an extension header; its first byte is not set yet."""
    if kind == 44:
        offset = draw(st.sampled_from((0,) * 6 + (1, 8, 0xFFF8)))
        return bytearray(bytes(2) + offset.to_bytes(2, "big") + bytes(4))
    if kind == 60:
        area = draw(option_areas(ipv6=True))
        area += bytes((-len(area) - 2) % 8)
        return bytearray(bytes(1) + off(draw, (len(area) + 2) // 8 - 1, 8) + area)
    if kind == 51:
        words = draw(st.sampled_from((0, 2, 4)))
        return bytearray(bytes(1) + off(draw, words, 8) + bytes((words + 2) * 4 - 2))
    units = draw(st.sampled_from((0, 0, 1)))
    left = draw(st.sampled_from((0,) * 6 + (1, 255)))
    rest = bytes((0, left)) + bytes((units + 1) * 8 - 4)
    return bytearray(bytes(1) + off(draw, units, 8) + rest)


@st.composite
def packets6(draw: st.DrawFn) -> bytes:
    """Build an IPv6 packet."""
    protocol, rest = draw(transports())
    kinds = draw(st.lists(st.sampled_from((60, 60, 60, 0, 43, 44, 51, 135, 139, 140)), max_size=4))
    if draw(st.integers(0, 19)) == 0:
        kinds = [60] * draw(st.integers(7, 10))
    if draw(st.integers(0, 3)):
        kinds.sort(key=lambda kind: kind == 0, reverse=True)
    chain = b""
    following = protocol
    for kind in reversed(kinds):
        header = draw(extension_headers(kind))
        header[0] = following
        chain = bytes(header) + chain
        following = kind
    return b"".join(
        (
            b"\x60\x00\x00\x00",
            off(draw, len(chain) + len(rest), 16),
            bytes((following, 64)),
            draw(st.sampled_from(SOURCES6)) + bytes.fromhex("20010db8000b00000000000000000009"),
            chain + rest,
        )
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[bytes, tuple[str, ...], tuple[str, ...] | None]:
    """Build a packet, and choose the dialects and the senders to trust."""
    packet = draw(st.one_of(packets4(), packets6()))
    end = draw(st.sampled_from(("as it is",) * 20 + ("cut", "padded")))
    if end == "cut":
        packet = packet[: draw(st.integers(0, len(packet)))]
    elif end == "padded":
        packet += draw(st.binary(max_size=20))
    wanted = draw(st.sets(st.sampled_from(sorted(harness.SWITCHES))))
    if draw(st.integers(0, 2)):
        wanted = set(harness.SWITCHES)
    return packet, tuple(sorted(wanted)), draw(st.sampled_from(TRUSTED))


@pytest.fixture(scope="module")
def parser() -> Iterator[harness.Conversation]:
    """Keep one harness running for all examples."""
    need("gcc")
    with harness.Conversation(build("vectors", *OPTIMISED)) as conversation:
        yield conversation


@pytest.mark.timeout(120 + EXAMPLES // 20)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(case=cases())
def test_built_packets(
    parser: harness.Conversation,
    case: tuple[bytes, tuple[str, ...], tuple[str, ...] | None],
) -> None:
    """Parser and reference agree on packets built from right and wrong parts."""
    line = harness.request(*case)
    expect = decoder.decode(*case)
    event(str(expect.get("dialect") or expect["reason"]))
    assert harness.outcome(parser.ask(line)).expect() == expect, line
