# SPDX-License-Identifier: MIT
"""The reference packet decoder: one function for each table of rules.

"Row 13" in a comment means row 13 of the tables in docs/wire-format.md, rules 4.2.  The other
tables have no row numbers; their rows are quoted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

DIALECTS: Final = frozenset({"ipo", "opp", "bd", "ppv2", "spp"})

HOP_BY_HOP: Final = 0
UDP: Final = 17
ROUTING: Final = 43
FRAGMENT: Final = 44
AUTHENTICATION: Final = 51
DESTINATION_OPTIONS: Final = 60
OPP: Final = 248
EXTENSION_HEADERS: Final = frozenset({0, 43, 44, 51, 60, 135, 139, 140})
MAX_EXTENSION_HEADERS: Final = 8

MAPPED: Final = bytes(10) + b"\xff\xff"
ANY6: Final = bytes(16)
LOOPBACK6: Final = bytes(15) + b"\x01"
BROADCAST4: Final = b"\xff\xff\xff\xff"

PPV2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
PPV2_TLV_CRC32C: Final = 0x03
SPP_MAGIC: Final = b"\x56\xec"


class RejectedError(Exception):
    """The packet yields no address; `reason` is one of the twelve of the vector README."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Transport(NamedTuple):
    """Where an IP packet keeps what it carries (all offsets count from the IP header)."""

    source: bytes
    """4 or 16 bytes, as is `destination`."""
    destination: bytes
    protocol: int
    """`UDP` or `OPP`."""
    protocol_at: int
    """Offset of the byte that says so."""
    offset: int
    """Where the UDP or opp header begins."""
    end: int
    """Where the packet ends by its own length field."""
    first_fragment: bool
    ipv4_options: bytes
    """The option area of the IPv4 header."""
    destination_options: bytes
    """The options of the Destination Options header directly in front of UDP."""


class Item(NamedTuple):
    """One claim about who the client is."""

    dialect: str
    address: bytes
    """4 or 16 bytes."""
    port: int
    vip: bytes = b""
    """4 or 16 bytes, empty where the dialect has none."""
    vip_port: int = 0
    vni: int = 0
    payload_strip: int = 0


# ---------------------------------------------------------------------------------------------
# Rules 4.2: the order of checks
# ---------------------------------------------------------------------------------------------


def decode(
    packet: bytes, dialects: Iterable[str], trusted: Iterable[str] | None = None
) -> dict[str, object]:
    """Say what a packet tells about its client.

    Args:
        packet: everything from the first byte of the IP header to the end of the buffer.
        dialects: the dialects that are switched on: any of `ipo`, `opp`, `bd`, `ppv2`, `spp`.
        trusted: prefixes of the senders to believe; an empty list trusts nobody, None everybody.

    Returns:
        The `expect` object of a packet vector.

    Raises:
        ValueError: a dialect or a prefix is none.
    """
    enabled = frozenset(dialects)
    if not enabled <= DIALECTS:
        raise ValueError(f"not a dialect: {sorted(enabled - DIALECTS)}")
    prefixes = None if trusted is None else parse_prefixes(tuple(trusted))

    try:
        transport = find_transport(packet, enabled)
    except RejectedError as rejected:
        return {"found": False, "reason": rejected.reason}

    if transport.protocol == UDP:
        try:
            return read_datagram(packet, transport, transport.offset, b"", enabled, prefixes)
        except RejectedError as rejected:
            return {"found": False, "reason": rejected.reason}

    # Row 18: the packet has reached the opp header, so the answer has the key `stripped`.
    try:
        opp_len = opp_header_len(packet[transport.offset : transport.end])
    except RejectedError as rejected:
        return {"found": False, "reason": rejected.reason, "stripped": None}
    udp_at = transport.offset + opp_len
    opp_options = packet[transport.offset + 4 : udp_at]
    try:
        result = read_datagram(packet, transport, udp_at, opp_options, enabled, prefixes)
    except RejectedError as rejected:
        result = {"found": False, "reason": rejected.reason}
    result["stripped"] = strip_opp(packet, transport, opp_len).hex()
    return result


def find_transport(packet: bytes, enabled: frozenset[str]) -> Transport:
    """Rules 4.2, rows 1 to 17: find the transport header, or refuse the packet."""
    if not packet:
        raise RejectedError("truncated")  # Row 1.
    version = packet[0] >> 4
    if version == 4:
        return find_transport_ipv4(packet, enabled)
    if version == 6:
        return find_transport_ipv6(packet, enabled)
    raise RejectedError("not_ip")  # Row 2.


def find_transport_ipv4(packet: bytes, enabled: frozenset[str]) -> Transport:
    """Rules 4.2, IPv4 rows."""
    if len(packet) < 20:
        raise RejectedError("truncated")  # Row 1.
    header_len = (packet[0] & 0x0F) * 4
    total_len = int.from_bytes(packet[2:4], "big")
    if header_len < 20 or total_len < header_len:
        raise RejectedError("malformed")  # Row 3.
    if len(packet) < total_len:
        raise RejectedError("truncated")  # Row 4.
    # Row 5: nothing below looks at a byte behind total_len.
    fragment = int.from_bytes(packet[6:8], "big")
    if fragment & 0x1FFF:
        raise RejectedError("fragment")  # Row 6.
    # Row 7: a first fragment goes on.  Row 8: the header checksum is not checked.
    protocol = packet[9]
    if protocol != UDP and not (protocol == OPP and "opp" in enabled):
        raise RejectedError("not_udp")  # Row 9.
    return Transport(
        source=packet[12:16],
        destination=packet[16:20],
        protocol=protocol,
        protocol_at=9,
        offset=header_len,
        end=total_len,
        first_fragment=bool(fragment & 0x2000),
        ipv4_options=packet[20:header_len],
        destination_options=b"",
    )


def find_transport_ipv6(packet: bytes, enabled: frozenset[str]) -> Transport:
    """Rules 4.2, IPv6 rows."""
    if len(packet) < 40:
        raise RejectedError("truncated")  # Row 10.
    payload_len = int.from_bytes(packet[4:6], "big")
    next_header = packet[6]
    next_header_at = 6
    if payload_len == 0 and next_header == HOP_BY_HOP:
        raise RejectedError("unsupported")  # Row 11.
    end = 40 + payload_len
    if len(packet) < end:
        raise RejectedError("truncated")  # Row 12.

    offset = 40
    headers = 0
    first_fragment = False
    destination_options = b""
    while next_header in EXTENSION_HEADERS:
        headers += 1
        if headers > MAX_EXTENSION_HEADERS or end - offset < 8:
            raise RejectedError("malformed")  # Row 13.
        if next_header == HOP_BY_HOP and headers > 1:
            raise RejectedError("malformed")  # Row 14.
        if next_header == FRAGMENT:  # Row 14: the lengths.
            header_len = 8
        elif next_header == AUTHENTICATION:
            header_len = (packet[offset + 1] + 2) * 4
        else:
            header_len = (packet[offset + 1] + 1) * 8
        if header_len > end - offset:
            raise RejectedError("malformed")  # Row 13.
        if next_header == ROUTING and packet[offset + 3] != 0:
            raise RejectedError("unsupported")  # Row 15.
        if next_header == FRAGMENT:  # Row 16.
            fragment = int.from_bytes(packet[offset + 2 : offset + 4], "big")
            if fragment & 0xFFF8:
                raise RejectedError("fragment")
            if fragment & 0x0001:
                first_fragment = True
        # Rules 4.3: only the Destination Options header whose Next Header is 17 is looked at.
        if next_header == DESTINATION_OPTIONS and packet[offset] == UDP:
            destination_options = packet[offset + 2 : offset + header_len]
        next_header_at = offset
        next_header = packet[offset]
        offset += header_len

    if next_header != UDP and not (next_header == OPP and "opp" in enabled):
        raise RejectedError("not_udp")  # Row 17.
    return Transport(
        source=packet[8:24],
        destination=packet[24:40],
        protocol=next_header,
        protocol_at=next_header_at,
        offset=offset,
        end=end,
        first_fragment=first_fragment,
        ipv4_options=b"",
        destination_options=destination_options,
    )


def read_datagram(
    packet: bytes,
    transport: Transport,
    udp_at: int,
    opp_options: bytes,
    enabled: frozenset[str],
    prefixes: tuple[Prefix, ...] | None,
) -> dict[str, object]:
    """Rules 4.2, rows 19 to 26: judge the UDP header and the sender, then weigh the items."""
    udp_left = transport.end - udp_at
    if udp_left < 8:
        raise RejectedError("malformed")  # Row 19.
    udp_len = int.from_bytes(packet[udp_at + 4 : udp_at + 6], "big")
    if udp_len < 8:
        raise RejectedError("malformed")  # Row 19.
    if udp_len > udp_left and not transport.first_fragment:
        raise RejectedError("malformed")  # Row 19.
    payload = packet[udp_at + 8 : udp_at + min(udp_len, udp_left)]  # Row 20.

    if prefixes is not None and not is_trusted(transport.source, prefixes):
        raise RejectedError("untrusted")  # Row 21.

    # Row 22: this order, and the first malformed one ends it.
    items = ipv4_option_items(transport.ipv4_options, enabled)
    items += destination_option_items(transport.destination_options, enabled)
    items += opp_option_items(opp_options)
    proxy_said = ""
    if "ppv2" in enabled:
        ppv2, proxy_said = ppv2_item(payload)
        if ppv2 is not None:
            items.append(ppv2)
    if "spp" in enabled:
        spp = spp_item(payload)
        if spp is not None:
            items.append(spp)

    if not items:
        raise RejectedError(proxy_said or "absent")  # Row 23.
    for item in items:
        if breaks_rule_a(item.address, item.port, transport.source):
            raise RejectedError("invalid_addr")  # Row 24.
    first = items[0]
    for item in items[1:]:
        if item.port != first.port or as16(item.address) != as16(first.address):
            raise RejectedError("conflict")  # Row 25.

    # Row 26.
    found: dict[str, object] = {
        "found": True,
        "real_addr": address_text(first.address),
        "real_port": first.port,
        "dialect": first.dialect,
        "outer_src": address_text(transport.source),
        "outer_sport": int.from_bytes(packet[udp_at : udp_at + 2], "big"),
        "outer_dst": address_text(transport.destination),
        "outer_dport": int.from_bytes(packet[udp_at + 2 : udp_at + 4], "big"),
    }
    if first.vip:
        found["vip_addr"] = address_text(first.vip)
        found["vip_port"] = first.vip_port
    if first.dialect == "bd29":
        found["vni"] = first.vni
    if first.dialect in ("ppv2", "spp"):
        found["payload_strip"] = first.payload_strip
    return found


# ---------------------------------------------------------------------------------------------
# Rules 4.3: the option walks
# ---------------------------------------------------------------------------------------------


def split_ipv4_options(area: bytes) -> list[bytes]:
    """Cut an IPv4-style option area into options of type, length and data (rules 4.3)."""
    options: list[bytes] = []
    at = 0
    while at < len(area):
        kind = area[at]
        if kind == 0:  # "type 0 (END)": whatever follows is padding.
            break
        if kind == 1:  # "type 1 (NOP)".
            at += 1
            continue
        if at + 1 == len(area):
            raise RejectedError("malformed")  # "other type as the last byte".
        length = area[at + 1]
        if length < 2:
            raise RejectedError("malformed")  # "length 0 or 1".
        if at + length > len(area):
            raise RejectedError("malformed")  # "option longer than what is left".
        options.append(area[at : at + length])
        at += length
    return options


def ipv4_option_items(area: bytes, enabled: frozenset[str]) -> list[Item]:
    """Rules 4.3, the option area of the IPv4 header."""
    items: list[Item] = []
    for option in split_ipv4_options(area):
        kind, length = option[0], option[1]
        if kind == 0x1F and length in (8, 20):
            if "ipo" in enabled:
                items.append(ipo_item("ipo", option[2:]))
        elif kind == 0x1F and length in (16, 40):
            if "bd" in enabled:
                items.append(bd_ipv4_item("bd31", option))
        elif kind == 0x1F:  # "0x1f, any other length".
            if "ipo" in enabled or "bd" in enabled:
                raise RejectedError("malformed")
        elif kind == 0x1E and "bd" in enabled:
            if length not in (16, 40):
                raise RejectedError("malformed")
            items.append(bd_ipv4_item("bd30", option))
        elif kind == 0x1D and "bd" in enabled:
            if length not in (16, 32):
                raise RejectedError("malformed")
            items.append(bd_ipv4_item("bd29", option))
        # All other types, 0x9f included, are skipped.
    return items


def opp_option_items(area: bytes) -> list[Item]:
    """Rules 4.3, the option area of the opp header; the `bd` types are skipped there."""
    items: list[Item] = []
    for option in split_ipv4_options(area):
        if option[0] == 0x1F:
            if option[1] not in (8, 20):
                raise RejectedError("malformed")
            items.append(ipo_item("opp", option[2:]))
    return items


def destination_option_items(area: bytes, enabled: frozenset[str]) -> list[Item]:
    """Rules 4.3, the options of the Destination Options header in front of UDP."""
    items: list[Item] = []
    at = 0
    while at < len(area):
        kind = area[at]
        if kind == 0:  # "type 0 (Pad1)".
            at += 1
            continue
        if at + 1 == len(area):
            raise RejectedError("malformed")  # "type as the last byte".
        length = area[at + 1]
        data = area[at + 2 : at + 2 + length]
        if len(data) < length:
            raise RejectedError("malformed")  # "length past the header", PadN too.
        at += 2 + length
        if kind == 0x1F and length in (6, 18):
            if "ipo" in enabled:
                items.append(ipo_item("ipo", data))
        elif kind == 0x1F and length in (12, 36):
            if "bd" in enabled:
                items.append(bd_item("bd31", data))
        elif kind == 0x1F:  # "other lengths".
            if "ipo" in enabled or "bd" in enabled:
                raise RejectedError("malformed")
        elif kind == 0x1E and "bd" in enabled:
            if length not in (12, 36):
                raise RejectedError("malformed")
            items.append(bd_item("bd30", data))
        elif kind == 0x1D and "bd" in enabled:
            if length not in (12, 28):
                raise RejectedError("malformed")
            items.append(bd_item("bd29", data))
        # PadN and unknown types are skipped, whatever their action bits say.
    return items


def ipo_item(dialect: str, data: bytes) -> Item:
    """Wire format 1.1: port, then an address that fills the rest (6 or 18 bytes in all)."""
    return Item(dialect, data[2:], int.from_bytes(data[0:2], "big"))


def bd_ipv4_item(dialect: str, option: bytes) -> Item:
    """Wire format 1.3, IPv4 outer header: an operation byte and a pad byte, then the data."""
    operation = 0 if option[1] == 16 else 1
    if option[2] != operation:
        raise RejectedError("malformed")  # "BD item whose op byte is not 0 for 16 and 1 for 40/32".
    return bd_item(dialect, option[4:])


def bd_item(dialect: str, data: bytes) -> Item:
    """Wire format 1.3: the data of an option, the same bytes in both outer families."""
    if dialect == "bd29":
        address_len = 4 if len(data) == 12 else 16
        return Item(
            dialect,
            address=data[8 : 8 + address_len],
            port=int.from_bytes(data[4:6], "big"),
            vni=int.from_bytes(data[0:4], "big"),
        )
    address_len = 4 if len(data) == 12 else 16
    return Item(
        dialect,
        address=data[4 : 4 + address_len],
        port=int.from_bytes(data[0:2], "big"),
        vip=data[4 + address_len :],
        vip_port=int.from_bytes(data[2:4], "big"),
    )


# ---------------------------------------------------------------------------------------------
# Rules 4.4: the opp header
# ---------------------------------------------------------------------------------------------


def opp_header_len(rest: bytes) -> int:
    """Rules 4.4: the length of the opp header at the start of `rest`, or refuse it."""
    if len(rest) < 4:
        raise RejectedError("malformed")  # "fewer than 4 bytes".
    if rest[0] not in (0x10, 0x20):
        raise RejectedError("malformed")  # "version not 1 or 2; reserved nibble not 0".
    length = int.from_bytes(rest[2:4], "big")
    if length < 4 or length % 4 != 0 or length > 44 or length > len(rest):
        raise RejectedError(
            "malformed"
        )  # "length < 4, not a multiple of 4, > 44, or past the packet".
    if rest[1] != UDP:
        raise RejectedError("not_udp")  # "protocol not 17".
    return length


def strip_opp(packet: bytes, transport: Transport, opp_len: int) -> bytes:
    """Wire format 1.2, "handing the datagram on": the packet without its opp header."""
    head = bytearray(packet[: transport.offset])
    head[transport.protocol_at] = UDP
    if len(transport.source) == 4:
        head[2:4] = (transport.end - opp_len).to_bytes(2, "big")
        head[10:12] = bytes(2)
        head[10:12] = internet_checksum(head).to_bytes(2, "big")
    else:
        head[4:6] = (transport.end - 40 - opp_len).to_bytes(2, "big")
    return bytes(head) + packet[transport.offset + opp_len : transport.end]


def internet_checksum(header: bytes | bytearray) -> int:
    """RFC 1071, over an even number of bytes."""
    total = 0
    for at in range(0, len(header), 2):
        total += header[at] << 8 | header[at + 1]
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


# ---------------------------------------------------------------------------------------------
# Rules 4.5: rule A, and addresses in general
# ---------------------------------------------------------------------------------------------


def breaks_rule_a(address: bytes, port: int, outer_source: bytes) -> bool:
    """Rules 4.5: tell whether an address and port can be no client."""
    if port == 0:
        return True
    if is_loopback(address):
        # The one exception: everything can be tried on one machine.
        return not is_loopback(outer_source)
    if address[:12] == MAPPED:
        address = address[12:]  # "a mapped ::ffff:a.b.c.d whose IPv4 part is one of these".
    if len(address) == 4:
        first = address[0]
        return first == 0 or 224 <= first <= 239 or address == BROADCAST4
    return address == ANY6 or address[0] == 0xFF


def is_loopback(address: bytes) -> bool:
    """Tell whether an address is in 127.0.0.0/8, the same as IPv4-mapped, or `::1`."""
    if len(address) == 4:
        return address[0] == 127
    return address == LOOPBACK6 or (address[:12] == MAPPED and address[12] == 127)


def as16(address: bytes) -> bytes:
    """Return an address as 16 bytes, IPv4 as mapped, so that the two families compare."""
    return MAPPED + address if len(address) == 4 else address


@lru_cache(maxsize=4096)
def address_text(address: bytes) -> str:
    """Return the text the vectors use: RFC 5952, but IPv4-mapped in hexadecimal groups.

    Python 3.13 changed how `ipaddress` writes a mapped address, hence the case of its own.
    """
    if address[:12] == MAPPED:
        high = int.from_bytes(address[12:14], "big")
        low = int.from_bytes(address[14:16], "big")
        return f"::ffff:{high:x}:{low:x}"
    return str(ipaddress.ip_address(address))


class Prefix(NamedTuple):
    """A trusted prefix, ready to compare."""

    address_len: int
    network: int
    mask: int


@lru_cache(maxsize=1024)
def parse_prefixes(prefixes: tuple[str, ...]) -> tuple[Prefix, ...]:
    """Parse trusted prefixes; a list comes back with every packet, so the result is kept."""
    networks = [ipaddress.ip_network(prefix) for prefix in prefixes]
    return tuple(
        Prefix(network.max_prefixlen // 8, int(network.network_address), int(network.netmask))
        for network in networks
    )


def is_trusted(source: bytes, prefixes: tuple[Prefix, ...]) -> bool:
    """Row 21: tell whether the outer source is inside one of the prefixes of its family."""
    number = int.from_bytes(source, "big")
    for prefix in prefixes:
        if prefix.address_len == len(source) and number & prefix.mask == prefix.network:
            return True
    return False


# ---------------------------------------------------------------------------------------------
# Rules 4.6: PROXY protocol version 2
# ---------------------------------------------------------------------------------------------


def ppv2_item(payload: bytes, transport_of_carrier: int = 2) -> tuple[Item | None, str]:
    """Rules 4.6: return the item, or None and what row 23 says when nothing else is found.

    The carrier is UDP (2, DGRAM) or, by rules 4.8, TCP (1, STREAM).
    """
    if payload[:12] != PPV2_SIGNATURE:
        return None, ""  # "payload does not start with all 12 signature bytes".
    if len(payload) < 16:
        raise RejectedError("malformed")  # "signature but fewer than 16 bytes".
    version, command = payload[12] >> 4, payload[12] & 0x0F
    family, transport = payload[13] >> 4, payload[13] & 0x0F
    if version != 2 or command > 1 or family > 3 or transport > 2:
        raise RejectedError("malformed")  # "version not 2; command > 1; family > 3; transport > 2".
    length = int.from_bytes(payload[14:16], "big")
    if 16 + length > len(payload):
        raise RejectedError("malformed")  # "16 + length > payload".
    if command == 0:
        return None, "local"  # "LOCAL": the block is skipped unread.
    if family in (0, 3) or transport != transport_of_carrier:
        return None, "unsupported"  # "family 0 or 3, transport 0 or 1".

    address_len = 4 if family == 1 else 16
    block_len = 2 * address_len + 4
    if length < block_len:
        raise RejectedError("malformed")  # "length < 12 (IPv4) / 36 (IPv6)".
    header = payload[: 16 + length]
    check_ppv2_tlvs(header, 16 + block_len)

    ports_at = 16 + 2 * address_len
    item = Item(
        "ppv2",
        address=header[16 : 16 + address_len],
        port=int.from_bytes(header[ports_at : ports_at + 2], "big"),
        vip=header[16 + address_len : ports_at],
        vip_port=int.from_bytes(header[ports_at + 2 : ports_at + 4], "big"),
        payload_strip=16 + length,  # "strip".
    )
    return item, ""


def check_ppv2_tlvs(header: bytes, at: int) -> None:
    """Rules 4.6, the TLV rows: `at` is where the TLVs begin, the header's end is theirs."""
    crc_at = 0
    while at < len(header):
        if len(header) - at < 3:
            raise RejectedError("malformed")  # "1 or 2 stray bytes".
        kind = header[at]
        length = int.from_bytes(header[at + 1 : at + 3], "big")
        if at + 3 + length > len(header):
            raise RejectedError("malformed")  # "TLV past the header".
        if kind == PPV2_TLV_CRC32C:
            if length != 4 or crc_at:
                raise RejectedError("malformed")  # "CRC32C with length not 4, or twice".
            crc_at = at + 3
        at += 3 + length  # "other TLVs: skipped".
    if crc_at:
        blanked = header[:crc_at] + bytes(4) + header[crc_at + 4 :]
        if crc32c(blanked) != int.from_bytes(header[crc_at : crc_at + 4], "big"):
            raise RejectedError("checksum")  # "CRC32C wrong".


def decode_stream(start: bytes, sender: bytes) -> dict[str, object] | int:
    """Rules 4.8: say what the start of a trusted sender's TCP connection tells, as decode() does.

    A number is how many bytes from the start are wanted before that can be said.
    """
    if start[:12] != PPV2_SIGNATURE[: len(start)]:
        return {"found": False, "reason": "absent", "payload_strip": 0}
    wanted = 16 if len(start) < 16 else 16 + int.from_bytes(start[14:16], "big")
    if wanted > len(start):
        return wanted
    try:
        item, said = ppv2_item(start, transport_of_carrier=1)
    except RejectedError as rejected:
        return {"found": False, "reason": rejected.reason, "payload_strip": 0}
    if item is None:
        return {"found": False, "reason": said, "payload_strip": wanted}
    if breaks_rule_a(item.address, item.port, sender):
        return {"found": False, "reason": "invalid_addr", "payload_strip": wanted}
    return {
        "found": True,
        "real_addr": address_text(item.address),
        "real_port": item.port,
        "vip_addr": address_text(item.vip),
        "vip_port": item.vip_port,
        "payload_strip": wanted,
    }


def crc32c_of_byte(byte: int) -> int:
    """Return the table entry of one byte: Castagnoli polynomial, reflected (0x82f63b78)."""
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


CRC32C_TABLE: Final = [crc32c_of_byte(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    """Wire format 1.4: start and final xor all ones."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC32C_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


# ---------------------------------------------------------------------------------------------
# Rules 4.7: Simple Proxy Protocol
# ---------------------------------------------------------------------------------------------


def spp_item(payload: bytes) -> Item | None:
    """Rules 4.7: return the item, or None when there is no header."""
    if payload[:2] != SPP_MAGIC:
        return None  # "payload does not start with 56 ec".
    if len(payload) < 38:
        raise RejectedError("malformed")  # "56 ec but fewer than 38 bytes".
    return Item(
        "spp",
        address=unmapped(payload[2:18]),
        port=int.from_bytes(payload[34:36], "big"),
        vip=unmapped(payload[18:34]),
        vip_port=int.from_bytes(payload[36:38], "big"),
        payload_strip=38,  # "strip".
    )


def unmapped(address: bytes) -> bytes:
    """Return a mapped address as IPv4 ("mapped client or proxy: reported as IPv4")."""
    return address[12:] if address[:12] == MAPPED else address
