# SPDX-License-Identifier: MIT
"""A seeded mutator: from the packet vectors to an endless row of packets that reach deep.

A packet with one random byte changed dies at the first length check.  So a case is made in three
steps: edits that know where the option areas, extension headers and PROXY bytes are; then, most of
the time, a repair of the lengths that those edits broke; then, seldom, damage that is not
repaired.  The same seed and vectors give the same cases on every Python: of `random.Random` only
`random()` is used, which is promised not to change.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")

Case = tuple[bytes, tuple[str, ...], tuple[str, ...] | None]

DIALECTS: Final = ("bd", "ipo", "opp", "ppv2", "spp")
BIT: Final = {name: 1 << at for at, name in enumerate(DIALECTS)}
ALL_DIALECTS: Final = 31
SUBSETS: Final = tuple(
    tuple(name for name in DIALECTS if BIT[name] & subset) for subset in range(ALL_DIALECTS + 1)
)

UDP: Final = 17
OPP: Final = 248
EXTENSION_HEADERS: Final = frozenset({0, 43, 44, 51, 60, 135, 139, 140})

INTERESTING: Final = bytes.fromhex("000102040607080c1011121d1e1f14202428293c7f809dff")
PROTOCOLS: Final = bytes((17, 17, 17, 248, 248, 6, 0, 43, 44, 50, 51, 59, 60, 135, 139, 140, 255))
OPTION_LENGTHS: Final = bytes((0, 1, 2, 6, 7, 8, 9, 12, 16, 18, 20, 24, 28, 32, 36, 38, 40, 255))
PROXY_FIRST: Final = bytes((0x21, 0x21, 0x20, 0x20, 0x22, 0x11, 0x31, 0x2F))
PROXY_SECOND: Final = bytes((0x12, 0x22, 0x00, 0x11, 0x21, 0x31, 0x32, 0x10, 0x13, 0x42))

# The client and VIP of the vectors, so that an added item often agrees with one already there.
CLIENT4: Final = bytes.fromhex("cb00714d")
CLIENT6: Final = bytes.fromhex("20010db8cafe00000000000000000077")
VIP4: Final = bytes.fromhex("c633640a")
VIP6: Final = bytes.fromhex("20010db8000f00000000000000000010")
CLIENT_PORT: Final = (51234).to_bytes(2, "big")
VIP_PORT: Final = (443).to_bytes(2, "big")
MAPPED: Final = bytes(10) + b"\xff\xff"

# Rule A: both sides of every border.
RULE_A4: Final = (
    bytes.fromhex("00000000"),
    bytes.fromhex("00ffffff"),
    bytes.fromhex("01000000"),
    bytes.fromhex("7effffff"),
    bytes.fromhex("7f000000"),
    bytes.fromhex("7f000001"),
    bytes.fromhex("7fffffff"),
    bytes.fromhex("80000000"),
    bytes.fromhex("dfffffff"),
    bytes.fromhex("e0000000"),
    bytes.fromhex("efffffff"),
    bytes.fromhex("f0000000"),
    bytes.fromhex("fffffffe"),
    bytes.fromhex("ffffffff"),
    bytes.fromhex("0a000001"),
    bytes.fromhex("a9fe0101"),
)
RULE_A6: Final = (
    *(MAPPED + address for address in RULE_A4),
    bytes(16),
    bytes(15) + b"\x01",
    bytes(15) + b"\x02",
    bytes(12) + bytes.fromhex("7f000001"),
    bytes.fromhex("ff000000000000000000000000000000"),
    bytes.fromhex("ffffffffffffffffffffffffffffffff"),
    bytes.fromhex("feffffffffffffffffffffffffffffff"),
    bytes.fromhex("fe800000000000000000000000002333"),
    bytes.fromhex("0064ff9b0000000000000000cb00714d"),
)
LOOPBACK4: Final = bytes.fromhex("7f000001")
LOOPBACK6: Final = (bytes(15) + b"\x01", MAPPED + LOOPBACK4)

PPV2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
SPP_MAGIC: Final = b"\x56\xec"

TRUSTED: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("0.0.0.0/0", "::/0"),
    ("0.0.0.0/0",),
    ("::/0",),
    ("10.10.0.0/16", "2001:db8:a::/48"),
    ("10.10.0.5/32", "2001:db8:a::5/128"),
    ("10.10.0.4/32", "2001:db8:a::4/128"),
    ("10.0.0.0/9", "2001:db8::/45", "127.0.0.0/8", "::1/128"),
    ("192.0.2.0/24", "10.11.0.0/16"),
)

# How often each thing is done, in parts of one.
EDITED: Final = 0.97
EDITED_AGAIN: Final = 0.6
REPAIRED: Final = 0.9
DAMAGED: Final = 0.15
REFRESHED: Final = 0.1
CUT: Final = 0.02
PADDED: Final = 0.03
TRUST_GIVEN: Final = 0.08
POOL: Final = 512


class Layout(NamedTuple):
    """Where things are in a packet that may be broken; nothing here is past its end."""

    version: int
    options: int
    """The option area: IPv4 options, or those of the last Destination Options header."""
    options_end: int
    header: int
    """The extension header that the option area is in; 0 for IPv4."""
    protocol_at: int
    """The byte that names what is at `transport`."""
    transport: int
    opp: bool
    udp: int
    """Behind opp if there is one."""


def locate(packet: bytearray) -> Layout | None:
    """Find the parts of a packet, as far as they are there; None for what is no IP packet."""
    size = len(packet)
    if size < 20:
        return None
    version = packet[0] >> 4
    if version == 4:
        at = (packet[0] & 15) * 4
        if at < 20 or at > size:
            return None
        options, options_end, header, protocol_at = 20, at, 0, 9
    elif version == 6 and size >= 40:
        at, protocol_at = 40, 6
        options = options_end = header = 0
        for _ in range(10):
            kind = packet[protocol_at]
            if kind not in EXTENSION_HEADERS or at + 8 > size:
                break
            if kind == 44:
                length = 8
            elif kind == 51:
                length = (packet[at + 1] + 2) * 4
            else:
                length = (packet[at + 1] + 1) * 8
            if at + length > size:
                break
            if kind == 60:
                options, options_end, header = at + 2, at + length, at
            protocol_at = at
            at += length
    else:
        return None
    udp = at
    opp = packet[protocol_at] == OPP and at + 4 <= size
    if opp:
        udp = min(at + (packet[at + 2] << 8 | packet[at + 3]), size)
    return Layout(version, options, options_end, header, protocol_at, at, opp, udp)


def crc32c(data: bytes | bytearray) -> int:
    """Return the Castagnoli checksum; bit by bit, since it is needed for the pool only."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Mutator:
    """An endless, repeatable source of fuzz cases.

    Args:
        seed: equal seeds give equal cases.
        vectors: vectors of any kind; those of kind `packet` are the seeds.

    Raises:
        ValueError: there is no packet among the vectors.
    """

    def __init__(self, seed: int, vectors: list[dict[str, Any]]) -> None:
        self._random = random.Random(seed).random
        self._groups = group_seeds(vectors)
        self._wanted = 0
        self._options4 = [self._make_option4() for _ in range(POOL)]
        self._options6 = [self._make_option6() for _ in range(POOL)]
        self._opp_options = [self._make_option4(opp=True) for _ in range(POOL)]
        self._proxies = [self._make_proxy() for _ in range(POOL)]
        self._edits4 = weighted(
            (
                (14, self._edit_option_byte),
                (8, self._edit_option_length),
                (10, self._insert_option),
                (5, self._delete_option_bytes),
                (6, self._duplicate_option),
                (7, self._splice_options),
                (5, self._shift_options),
                (9, self._edit_client),
                (10, self._put_proxy),
                (6, self._edit_payload),
                (4, self._insert_payload),
                (5, self._insert_opp),
                (8, self._edit_opp),
                (4, self._edit_source),
                (3, self._flip_bits),
                (2, self._set_byte),
                (1, self._edit_protocol),
                (1, self._edit_fragment),
            )
        )
        self._edits6 = self._edits4 + weighted(
            (
                (18, self._insert_extension_header),
                (8, self._edit_extension_header),
            )
        )
        self._damages: tuple[Callable[[bytearray], None], ...] = (
            self._edit_udp_len,
            self._edit_udp_len,
            self._cut_first_fragment,
            self._cut_payload,
            self._edit_ip_len,
            self._make_jumbogram,
            self._edit_ihl,
            self._edit_fragment,
            self._edit_fragment,
            self._edit_protocol,
            self._edit_protocol,
            self._edit_version,
            self._flip_bits,
            self._flip_bits,
            self._set_byte,
            self._edit_ports,
        )

    def next(self) -> Case:
        """Make the next case.

        Returns:
            The packet, the dialects switched on, and the trusted prefixes or None.
        """
        rnd = self._random
        seed = self._pick(self._pick(self._groups))
        packet = bytearray(seed.packet)
        self._wanted = seed.dialects

        if rnd() < REFRESHED:
            self._refresh_pools()
        if rnd() < EDITED:
            edits = self._edits6 if seed.packet[:1] >= b"\x60" else self._edits4
            self._pick(edits)(packet)
            while rnd() < EDITED_AGAIN:
                self._pick(edits)(packet)
        if rnd() < REPAIRED:
            self._repair(packet)
        if rnd() < DAMAGED:
            self._pick(self._damages)(packet)
        if rnd() < CUT:
            del packet[self._below(len(packet) + 1) :]
        elif rnd() < PADDED:
            packet += bytes(1 + self._below(18))

        return bytes(packet), SUBSETS[self._choose_dialects()], self._choose_trusted(seed)

    # -- choices ------------------------------------------------------------------------------

    def _below(self, limit: int) -> int:
        return int(self._random() * limit)

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._random() * len(choices))]

    def _bytes(self, count: int) -> bytes:
        return bytes(int(self._random() * 256) for _ in range(count))

    def _choose_dialects(self) -> int:
        chance = self._random()
        if chance < 0.70:
            return self._wanted
        if chance < 0.83:
            return self._wanted | 1 << self._below(5)
        if chance < 0.92:
            return ALL_DIALECTS
        if chance < 0.98:
            return self._below(ALL_DIALECTS + 1)
        return 0

    def _choose_trusted(self, seed: Seed) -> tuple[str, ...] | None:
        if self._random() < TRUST_GIVEN:
            return self._pick(TRUSTED)
        return seed.trusted

    # -- pools of things to put in --------------------------------------------------------------
    #
    # Making an option costs more than the rest of a case, so the made ones are used many times.

    def _refresh_pools(self) -> None:
        at = self._below(POOL)
        self._options4[at] = self._make_option4()
        self._options6[at] = self._make_option6()
        self._opp_options[at] = self._make_option4(opp=True)
        self._proxies[at] = self._make_proxy()

    def _make_address(self, size: int) -> bytes:
        chance = self._random()
        if chance < 0.75:
            return CLIENT4 if size == 4 else CLIENT6
        if chance < 0.85:
            return self._bytes(size)
        if chance < 0.88 and size == 16:
            return MAPPED + CLIENT4
        return self._pick(RULE_A4 if size == 4 else RULE_A6)

    def _make_port(self) -> bytes:
        chance = self._random()
        if chance < 0.88:
            return CLIENT_PORT
        return bytes(2) if chance < 0.94 else self._bytes(2)

    def _make_bd(self, kind: int, size: int) -> bytes:
        """Make the data that type 31, 30 and 29 have in both families."""
        if kind == 0x1D:
            tail = bytes(4) if size == 16 else b""
            return self._bytes(4) + self._make_port() + bytes(2) + self._make_address(size) + tail
        vip = VIP4 if size == 4 else VIP6
        return self._make_port() + VIP_PORT + self._make_address(size) + vip

    def _make_option4(self, opp: bool = False) -> bytes:
        """Make an IPv4 option: mostly one of ours, mostly right."""
        chance = self._random()
        size = 4 if self._random() < 0.6 else 16
        if chance < (0.85 if opp else 0.45):
            option = bytearray((0x1F, 4 + size)) + self._make_port() + self._make_address(size)
        elif chance < 0.9:
            kind = self._pick((0x1F, 0x1E, 0x1D))
            data = self._make_bd(kind, size)
            option = bytearray((kind, 4 + len(data), size == 16, 0)) + data
        else:
            length = 2 + self._below(10)
            kind = self._pick((0x07, 0x44, 0x94, 0x9F, 0x9E, 0x82, 0x20, 0x1F))
            option = bytearray((kind, length)) + self._bytes(length - 2)
        if self._random() < 0.06:
            option[1] = self._pick(OPTION_LENGTHS)
        if self._random() < 0.04 and len(option) > 2:
            option[2] = self._pick((0, 1, 2, 255))
        return bytes(option)

    def _make_option6(self) -> bytes:
        """Make an IPv6 destination option: mostly one of ours, mostly right."""
        chance = self._random()
        size = 4 if self._random() < 0.4 else 16
        if chance < 0.45:
            data = self._make_port() + self._make_address(size)
            option = bytearray((0x1F, len(data))) + data
        elif chance < 0.9:
            kind = self._pick((0x1F, 0x1E, 0x1D))
            data = self._make_bd(kind, size)
            option = bytearray((kind, len(data))) + data
        else:
            length = self._below(10)
            kind = self._pick((0x01, 0x04, 0x4B, 0x8B, 0xC9, 0x3E, 0x9F, 0x1F))
            option = bytearray((kind, length)) + self._bytes(length)
        if self._random() < 0.06:
            option[1] = self._pick(OPTION_LENGTHS)
        return bytes(option)

    def _make_proxy(self) -> tuple[int, bytes]:
        """Make a PROXY v2 or SPP header and the bit of its dialect."""
        size = 4 if self._random() < 0.5 else 16
        client = self._make_address(size)
        vip = VIP4 if size == 4 else VIP6
        ports = self._make_port() + VIP_PORT
        if self._random() < 0.3:
            if size == 4:
                client, vip = MAPPED + client, MAPPED + vip
            return BIT["spp"], SPP_MAGIC + client + vip + ports
        tlvs = bytearray()
        crc_at = 0
        while self._random() < 0.35:
            kind = self._pick((0x03, 0x03, 0x03, 0x01, 0x02, 0x04, 0x05, 0x20, 0xE0, 0xFF))
            if kind == 0x03:
                length = 4 if self._random() < 0.85 else self._pick((0, 3, 5, 8))
                crc_at = len(tlvs) + 3 if length == 4 else 0
                tlvs += bytes((kind, 0, length)) + bytes(length)
            else:
                length = self._below(6)
                tlvs += bytes((kind, 0, length)) + self._bytes(length)
        if self._random() < 0.04:
            tlvs += self._bytes(1 + self._below(3))
        command, family = 0x21, 0x12 if size == 4 else 0x22
        if self._random() < 0.15:
            command = self._pick(PROXY_FIRST)
        if self._random() < 0.1:
            family = self._pick(PROXY_SECOND)
        block = client + vip + ports + tlvs
        if command & 15 == 0 and self._random() < 0.5:
            block, crc_at = b"", 0
        header = bytearray(PPV2_SIGNATURE + bytes((command, family, 0, len(block))) + block)
        if crc_at and self._random() < 0.8:
            crc_at += 16 + 2 * size + 4
            header[crc_at : crc_at + 4] = crc32c(header).to_bytes(4, "big")
        return BIT["ppv2"], bytes(header)

    # -- edits of the option areas --------------------------------------------------------------

    def _area(self, packet: bytearray) -> tuple[Layout, int, int] | None:
        """Choose an option area: of the opp header if there is one, of the IP header, of both."""
        layout = locate(packet)
        if layout is None:
            return None
        if layout.opp and (layout.version == 6 or self._random() < 0.7):
            return layout, layout.transport + 4, max(layout.udp, layout.transport + 4)
        return layout, layout.options, layout.options_end

    def _replace_area(self, packet: bytearray, area: tuple[Layout, int, int], new: bytes) -> None:
        """Put a new option area in and make the header's own length fit, as far as it can."""
        layout, start, end = area
        if layout.opp and start == layout.transport + 4:
            new = new[:40] + bytes(-len(new[:40]) % 4)
            packet[start:end] = new
            packet[start - 2 : start] = (4 + len(new)).to_bytes(2, "big")
        elif layout.version == 4:
            new = new[:40] + bytes(-len(new[:40]) % 4)
            packet[start:end] = new
            packet[0] = 0x40 | 5 + len(new) // 4
        elif start:
            new += bytes((-len(new) - 2) % 8)
            packet[start:end] = new
            packet[layout.header + 1] = ((len(new) + 2) // 8 - 1) & 0xFF
        else:
            # An IPv6 packet without a Destination Options header gets one.
            new += bytes((-len(new) - 2) % 8)
            self._insert_header(packet, layout, 60, bytes(((len(new) + 2) // 8 - 1 & 0xFF,)) + new)

    def _insert_header(self, packet: bytearray, layout: Layout, kind: int, rest: bytes) -> None:
        """Insert an extension header (`rest` is all but its first byte) in front of UDP or opp."""
        packet[layout.transport : layout.transport] = bytes((packet[layout.protocol_at],)) + rest
        packet[layout.protocol_at] = kind

    def _option_starts(self, packet: bytearray, area: tuple[Layout, int, int]) -> list[int]:
        """Return the offsets of the options with a length byte, as far as the walk goes."""
        layout, at, end = area
        end = min(end, len(packet))
        ipv6 = layout.version == 6 and not layout.opp
        starts: list[int] = []
        while at < end - 1 and len(starts) < 40:
            kind = packet[at]
            if kind == 0 and not ipv6:
                break
            if kind < (1 if ipv6 else 2):
                at += 1
                continue
            starts.append(at)
            at += packet[at + 1] + 2 if ipv6 else max(packet[at + 1], 1)
        return starts

    def _edit_option_byte(self, packet: bytearray) -> None:
        area = self._area(packet)
        if area is None or area[1] >= area[2]:
            return
        at = area[1] + self._below(area[2] - area[1])
        if self._random() < 0.5:
            packet[at] = self._pick(INTERESTING)
        else:
            packet[at] ^= 1 << self._below(8)

    def _edit_option_length(self, packet: bytearray) -> None:
        area = self._area(packet)
        if area is None:
            return
        starts = self._option_starts(packet, area)
        if not starts:
            return
        at = self._pick(starts)
        chance = self._random()
        if chance < 0.4:
            packet[at + 1] = (packet[at + 1] + self._pick((-1, 1))) & 0xFF
        elif chance < 0.8:
            packet[at + 1] = self._pick(OPTION_LENGTHS)
        else:
            packet[at] = self._pick((0x00, 0x01, 0x1D, 0x1D, 0x1E, 0x1E, 0x1F, 0x1F, 0x9F))

    def _insert_option(self, packet: bytearray) -> None:
        area = self._area(packet)
        if area is None:
            return
        layout, start, end = area
        old = bytes(packet[start:end])
        if layout.opp and start == layout.transport + 4:
            option = self._pick(self._opp_options)
        elif layout.version == 4:
            option = self._pick(self._options4)
        else:
            option = self._pick(self._options6)
        is_ipo = option[0] == 0x1F and option[1] in (6, 8, 18, 20)
        self._wanted |= BIT["ipo"] if is_ipo else BIT["bd"]
        chance = self._random()
        if chance < 0.4:
            old = option
        elif chance < 0.8:
            old = option + old
        else:
            at = self._below(len(old) + 1)
            old = old[:at] + option + old[at:]
        self._replace_area(packet, area, old)

    def _delete_option_bytes(self, packet: bytearray) -> None:
        area = self._area(packet)
        if area is None or area[1] >= area[2]:
            return
        old = packet[area[1] : area[2]]
        at = self._below(len(old))
        del old[at : at + 1 + self._below(8)]
        self._replace_area(packet, area, bytes(old))

    def _duplicate_option(self, packet: bytearray) -> None:
        area = self._area(packet)
        if area is None:
            return
        starts = self._option_starts(packet, area)
        if not starts:
            return
        layout, start, end = area
        at = self._pick(starts)
        size = packet[at + 1] + (2 if layout.version == 6 and not layout.opp else 0)
        option = packet[at : min(at + size, end)]
        if len(option) > 4 and self._random() < 0.3:
            option[2 + self._below(len(option) - 2)] ^= 1 << self._below(8)
        self._replace_area(packet, area, bytes(packet[start:at] + option + packet[at:end]))

    def _splice_options(self, packet: bytearray) -> None:
        """Take over the option area of another vector, in whole or from some byte on."""
        area = self._area(packet)
        other = self._pick(self._pick(self._groups))
        if area is None or not other.options or other.opp != area[0].opp:
            return
        self._wanted |= other.dialects
        old = bytes(packet[area[1] : area[2]])
        cut = self._below(len(old) + 1) if self._random() < 0.4 else 0
        self._replace_area(packet, area, old[:cut] + other.options)

    def _shift_options(self, packet: bytearray) -> None:
        """Put padding in front, so that options begin at every offset."""
        area = self._area(packet)
        if area is None:
            return
        layout, start, end = area
        count = 1 + self._below(7)
        if layout.version == 6 and not layout.opp:
            padding = self._pick((bytes(count), bytes((1, count)) + bytes(count)))
        else:
            padding = bytes((1,)) * count
        if self._random() < 0.1:
            padding = self._bytes(count)
        self._replace_area(packet, area, padding + bytes(packet[start:end]))

    def _edit_client(self, packet: bytearray) -> None:
        """Give the client of an item a rule A address, or port 0."""
        area = self._area(packet)
        if area is None:
            return
        layout = area[0]
        starts = self._option_starts(packet, area)
        if starts:
            at = self._pick(starts)
            ipv6 = layout.version == 6 and not layout.opp
            length = packet[at + 1] + (2 if ipv6 else 0)
            is_ipo = length in (8, 20)
            # Type and length; in an IPv4 header `bd` has an operation and a pad byte more.
            port_at = at + (2 if ipv6 or is_ipo else 4)
            if is_ipo:
                address_at = port_at + 2
            elif packet[at] == 0x1D:
                port_at += 4  # Behind the VNI.
                address_at = port_at + 4
            else:
                address_at = port_at + 4
            size = 4 if length <= 16 else 16
        else:
            payload = layout.udp + 8
            if packet[payload : payload + 2] == SPP_MAGIC:
                address_at, port_at, size = payload + 2, payload + 34, 16
            elif packet[payload : payload + 12] == PPV2_SIGNATURE:
                size = 4 if packet[payload + 13 : payload + 14] == b"\x12" else 16
                address_at, port_at = payload + 16, payload + 16 + 2 * size
            else:
                return
        if self._random() < 0.2:
            if port_at + 2 <= len(packet):
                packet[port_at : port_at + 2] = bytes(2)
        elif address_at + size <= len(packet):
            new = self._pick(RULE_A4 if size == 4 else RULE_A6)
            packet[address_at : address_at + size] = new

    # -- edits of the payload -------------------------------------------------------------------

    def _put_proxy(self, packet: bytearray) -> None:
        """Put a PROXY v2 or SPP header in front of the payload, or in its place."""
        layout = locate(packet)
        if layout is None or layout.udp + 8 > len(packet):
            return
        bit, header = self._pick(self._proxies)
        self._wanted |= bit
        at = layout.udp + 8
        if self._random() < 0.6:
            del packet[at:]
        packet[at:at] = header

    def _edit_payload(self, packet: bytearray) -> None:
        """Change a byte near the start of the payload, where a PROXY header has its fields."""
        layout = locate(packet)
        if layout is None or layout.udp + 8 >= len(packet):
            return
        payload = layout.udp + 8
        size = len(packet) - payload
        chance = self._random()
        if size < 16 or chance < 0.4:
            at = payload + self._below(min(size, 80))
            packet[at] ^= 1 << self._below(8)
        elif chance < 0.55:
            packet[payload + 12] = self._pick(PROXY_FIRST)
        elif chance < 0.7:
            packet[payload + 13] = self._pick(PROXY_SECOND)
        else:
            packet[payload + 15] = (packet[payload + 15] + self._pick((-3, -1, 1, 3, 7))) & 0xFF

    def _insert_payload(self, packet: bytearray) -> None:
        """Insert, delete or double a few bytes anywhere behind the UDP header."""
        layout = locate(packet)
        if layout is None or layout.udp + 8 >= len(packet):
            return
        at = layout.udp + 8 + self._below(len(packet) - layout.udp - 8)
        chance = self._random()
        if chance < 0.4:
            del packet[at : at + 1 + self._below(12)]
        elif chance < 0.7:
            packet[at:at] = self._bytes(1 + self._below(8))
        else:
            packet[at:at] = packet[at : at + 1 + self._below(16)]

    # -- edits of extension headers and of opp --------------------------------------------------

    def _insert_extension_header(self, packet: bytearray) -> None:
        layout = locate(packet)
        if layout is None or layout.version != 6:
            return
        kind = self._pick((43, 44, 44, 51, 60, 60, 60, 135, 139, 140, 0))
        units = self._pick((0, 0, 0, 1, 2))
        rest = bytearray((1 + units) * 8 - 1)
        rest[0] = units
        if kind == 43:
            rest[2] = self._pick((0, 0, 1, 2, 255))
        elif kind == 44:
            rest = bytearray(7)
            rest[0] = self._pick((0, 0, 1, 255))
            rest[1], rest[2] = self._pick(((0, 0), (0, 0), (0, 1), (0, 6), (0, 8), (1, 0), (3, 33)))
        elif kind == 51:
            rest = bytearray((units + 2) * 4 - 1)
            rest[0] = units
        elif kind == 60:
            rest[1:1] = b"\x01" + bytes((len(rest) - 3,))
            del rest[-2:]
        chance = self._random()
        if chance < 0.5 or kind == 0:
            # In front of everything, so that a Destination Options header stays the last.
            packet[40:40] = bytes((packet[6],)) + rest
            packet[6] = kind
            if kind != 0 and packet[40] == 0:
                packet[6], packet[40] = 0, kind
        elif chance < 0.6:
            for _ in range(self._pick((6, 7, 8, 9))):
                packet[40:40] = bytes((packet[6],)) + bytes(7)
                packet[6] = 60
        else:
            self._insert_header(packet, layout, kind, bytes(rest))

    def _edit_extension_header(self, packet: bytearray) -> None:
        layout = locate(packet)
        if layout is None or layout.version != 6 or layout.transport == 40:
            return
        at = 40 if self._random() < 0.5 else layout.protocol_at
        if at < 40 or at + 4 > len(packet):
            return
        chance = self._random()
        if chance < 0.3:
            packet[at] = self._pick(PROTOCOLS)
        elif chance < 0.8:
            packet[at + 1] = (packet[at + 1] + self._pick((-1, 1, 1, 2, 255))) & 0xFF
        else:
            packet[at + 3] = self._pick(INTERESTING)

    def _insert_opp(self, packet: bytearray) -> None:
        """Put an opp header with an option in front of what the packet carries."""
        layout = locate(packet)
        if layout is None:
            return
        self._wanted |= BIT["opp"]
        options = self._pick(self._opp_options)[:40]
        options += bytes(-len(options) % 4)
        packet[layout.transport : layout.transport] = (
            bytes(
                (
                    0x10 if len(options) == 8 else 0x20,
                    packet[layout.protocol_at],
                    0,
                    4 + len(options),
                )
            )
            + options
        )
        packet[layout.protocol_at] = OPP

    def _edit_opp(self, packet: bytearray) -> None:
        layout = locate(packet)
        if layout is None or not layout.opp:
            return
        at = layout.transport
        chance = self._random()
        if chance < 0.3:
            packet[at] = self._pick((0x10, 0x20, 0x10, 0x20, 0x00, 0x11, 0x30, 0x1F, 0x2F, 0xF0))
        elif chance < 0.45:
            packet[at + 1] = self._pick((17, 6, 0, 248, 60))
        elif chance < 0.7:
            packet[at + 3] = (packet[at + 3] + self._pick((-8, -4, -1, 1, 4, 8))) & 0xFF
        elif chance < 0.9:
            packet[at + 3] = self._pick((0, 3, 4, 5, 8, 12, 16, 24, 40, 44, 48, 255))
        else:
            packet[at + 2] = self._pick((0, 1, 255))

    # -- edits of the fixed headers -------------------------------------------------------------

    def _edit_source(self, packet: bytearray) -> None:
        """Change the outer source; loopback is the exception in rule A."""
        size = len(packet)
        if size >= 20 and packet[0] >> 4 == 4:
            packet[12:16] = LOOPBACK4 if self._random() < 0.7 else self._pick(RULE_A4)
        elif size >= 40 and packet[0] >> 4 == 6:
            packet[8:24] = self._pick(LOOPBACK6) if self._random() < 0.7 else self._pick(RULE_A6)

    def _edit_ports(self, packet: bytearray) -> None:
        layout = locate(packet)
        if layout is not None and layout.udp + 4 <= len(packet):
            at = layout.udp + self._pick((0, 2))
            packet[at : at + 2] = bytes(2)

    def _edit_protocol(self, packet: bytearray) -> None:
        layout = locate(packet)
        if layout is not None:
            packet[layout.protocol_at] = self._pick(PROTOCOLS)

    def _edit_version(self, packet: bytearray) -> None:
        if packet:
            packet[0] = packet[0] & 0x0F | self._pick((0x00, 0x40, 0x50, 0x60, 0x70, 0xF0))

    def _edit_ihl(self, packet: bytearray) -> None:
        if packet and packet[0] >> 4 == 4:
            packet[0] = 0x40 | self._below(16)

    def _edit_fragment(self, packet: bytearray) -> None:
        if len(packet) >= 20 and packet[0] >> 4 == 4:
            packet[6] = self._pick((0x20, 0x20, 0x00, 0x40, 0x60, 0x80, 0x01))
            packet[7] = self._pick((0, 0, 0, 1, 185))

    def _cut_first_fragment(self, packet: bytearray) -> None:
        """Make a first fragment whose UDP length tells of bytes that a later one brings."""
        self._repair(packet)
        layout = locate(packet)
        if layout is None or layout.udp + 8 > len(packet):
            return
        self._edit_length(packet, layout.udp + 4)
        if layout.version == 4:
            packet[6:8] = b"\x20\x00"
        else:
            packet[40:40] = bytes((packet[6], 0, 0, 1, 0, 0, 0, 0))
            packet[6] = 44
            packet[4:6] = (len(packet) - 40 & 0xFFFF).to_bytes(2, "big")

    def _edit_ip_len(self, packet: bytearray) -> None:
        if len(packet) < 20:
            return
        at = 2 if packet[0] >> 4 == 4 else 4
        self._edit_length(packet, at)

    def _make_jumbogram(self, packet: bytearray) -> None:
        """Set payload length 0, mostly with the hop-by-hop header that goes with it."""
        if len(packet) >= 40 and packet[0] >> 4 == 6:
            packet[4:6] = bytes(2)
            if self._random() < 0.8:
                packet[6] = 0

    def _cut_payload(self, packet: bytearray) -> None:
        """End the packet in the UDP header or soon behind it, and say so in the lengths."""
        layout = locate(packet)
        if layout is not None:
            del packet[layout.udp + self._below(56) :]
            self._repair(packet)

    def _edit_udp_len(self, packet: bytearray) -> None:
        layout = locate(packet)
        if layout is not None and layout.udp + 8 <= len(packet):
            self._edit_length(packet, layout.udp + 4)

    def _edit_length(self, packet: bytearray, at: int) -> None:
        """Move a 16-bit length a little, or set it to one of the extremes."""
        if self._random() < 0.7:
            value = (packet[at] << 8 | packet[at + 1]) + self._pick((-8, -4, -2, -1, 1, 2, 4, 8))
        else:
            value = self._pick((0, 1, 7, 8, 9, 20, 65535))
        packet[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")

    def _flip_bits(self, packet: bytearray) -> None:
        size = min(len(packet), 128)
        if size:
            for _ in range(1 + self._below(3)):
                packet[self._below(size)] ^= 1 << self._below(8)

    def _set_byte(self, packet: bytearray) -> None:
        if packet:
            packet[self._below(min(len(packet), 128))] = self._pick(INTERESTING)

    # -- repair ---------------------------------------------------------------------------------

    def _repair(self, packet: bytearray) -> None:
        """Make the IP and UDP lengths fit the packet as it now is."""
        layout = locate(packet)
        if layout is None:
            return
        size = len(packet)
        if layout.version == 4:
            packet[2:4] = (size & 0xFFFF).to_bytes(2, "big")
        else:
            packet[4:6] = (size - 40 & 0xFFFF).to_bytes(2, "big")
        if layout.udp + 8 <= size:
            packet[layout.udp + 4 : layout.udp + 6] = (size - layout.udp & 0xFFFF).to_bytes(
                2, "big"
            )


class Seed(NamedTuple):
    """A packet vector, ready to be mutated."""

    packet: bytes
    dialects: int
    trusted: tuple[str, ...] | None
    options: bytes
    """Its option area: of the opp header if there is one, else of the IP header."""
    opp: bool


def group_seeds(vectors: Iterable[Mapping[str, Any]]) -> list[list[Seed]]:
    """Return the packet vectors by what they lead to, so that no frequent kind drowns a rare one.

    Raises:
        ValueError: there is no packet among the vectors.
    """
    groups: dict[str, list[Seed]] = {}
    gave_address: set[str] = set()
    for vector in vectors:
        if vector["kind"] != "packet":
            continue
        packet = bytes.fromhex(vector["packet"])
        expect, config = vector["expect"], vector["config"]
        layout = locate(bytearray(packet))
        options, opp = b"", False
        if layout is not None:
            opp = layout.opp
            if opp:
                options = packet[layout.transport + 4 : layout.udp]
            else:
                options = packet[layout.options : layout.options_end]
        seed = Seed(
            packet,
            sum(BIT[name] for name in config["dialects"]),
            tuple(config["trusted"]) if "trusted" in config else None,
            options,
            opp,
        )
        name = f"{expect.get('dialect', expect.get('reason'))} {packet[:1].hex()[:1]}"
        groups.setdefault(name, []).append(seed)
        if expect["found"]:
            gave_address.add(name)
    if not groups:
        raise ValueError("no vector of kind 'packet'")
    # Packets that gave an address are the ones worth changing: three times as often.
    found = [seeds for name, seeds in groups.items() if name in gave_address]
    return found * 3 + list(groups.values())


def weighted(table: Iterable[tuple[int, T]]) -> list[T]:
    """Return each entry as often as its weight says."""
    return [entry for weight, entry in table for _ in range(weight)]
