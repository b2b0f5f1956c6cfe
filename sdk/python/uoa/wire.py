# SPDX-License-Identifier: MIT
"""Packets for tools and tests: what the parser makes of one, and how to build one.

Both directions call libuoa, the parser that endpoints use. The rules are those
of docs/wire-format.md; `Decoded.rule` names the one that decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uoa import _dialects, _trust
from uoa._address import MAPPED, pack_host, to_native, unpack_host
from uoa._client import DIALECTS, names
from uoa._exceptions import ConfigurationError, WireError
from uoa._native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DIALECT_NAMES",
    "PAYLOAD_DIALECTS",
    "REASONS",
    "SWITCHES",
    "Decoded",
    "build",
    "build_local",
    "decode",
]

SWITCHES = _dialects.SWITCHES
"""What can be enabled: "bd" stands for three dialects."""
DIALECT_NAMES = tuple(name for name in DIALECTS if name)
"""What a claim can be made in."""
PAYLOAD_DIALECTS = _dialects.PAYLOAD
"""Those whose claim stands in front of the payload."""
REASONS = tuple(name for name in names(lib.uoa_reason_name) if name)
"""The outcomes of the parser; "found" is the first."""

_WITH_VIP = frozenset({"bd31", "bd30", "ppv2", "spp"})
_ROOM = 65535 + 256  # the longest packet, and the builder's reserve


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the parser makes of one packet."""

    reason: str
    """One of REASONS."""
    rule: str
    """The rule that decided, as a section and row of docs/wire-format.md."""
    rule_text: str
    """What that rule says."""
    outer_src: str | None
    """The addresses of the IP header; None unless the packet is UDP."""
    outer_sport: int
    outer_dst: str | None
    outer_dport: int
    client: tuple[str, int] | None = None
    """The address claimed; set when the reason is "found"."""
    dialect: str | None = None
    vip: tuple[str, int] | None = None
    vni: int | None = None
    payload_strip: int = 0
    """Bytes of header at the front of the payload."""
    payload: bytes = b""
    """The UDP payload, header included."""
    reached_opp: bool = False
    """Whether the packet has an opp header."""
    stripped: bytes | None = None
    """The packet without it; None when it must be left alone."""

    @property
    def found(self) -> bool:
        """Whether there is an acceptable claim."""
        return self.reason == "found"

    def as_dict(self) -> dict[str, Any]:
        """Return the `expect` object of a packet vector (tests/vectors/README.md)."""
        result: dict[str, Any] = {"found": self.found}
        if self.client is None:
            result["reason"] = self.reason
        else:
            result["real_addr"], result["real_port"] = self.client
            result["dialect"] = self.dialect
            result["outer_src"], result["outer_sport"] = self.outer_src, self.outer_sport
            result["outer_dst"], result["outer_dport"] = self.outer_dst, self.outer_dport
            if self.vip is not None:
                result["vip_addr"], result["vip_port"] = self.vip
            if self.dialect == "bd29":
                result["vni"] = self.vni
            if self.dialect in _dialects.PAYLOAD:
                result["payload_strip"] = self.payload_strip
        if self.reached_opp:
            result["stripped"] = None if self.stripped is None else self.stripped.hex()
        return result


def _text(native: Any, family: int) -> str:
    """Return an address as it stood on the wire: a mapped one stays IPv6."""
    packed = bytes(ffi.buffer(native))
    if family == 4 or not packed.startswith(MAPPED):
        return unpack_host(packed)
    high, low = packed[12:14].hex(), packed[14:].hex()
    return f"::ffff:{int(high, 16):x}:{int(low, 16):x}"


def decode(
    packet: bytes,
    dialects: str | Iterable[str] = SWITCHES,
    trusted: str | Iterable[str] | None = None,
) -> Decoded:
    """Judge a packet, from the first byte of its IP header on.

    Args:
        packet: the bytes; they may be cut, or go on behind the packet.
        dialects: what to look for, of SWITCHES; all by default.
        trusted: the prefixes whose claims are believed; None believes everybody.

    Raises:
        ConfigurationError: an unknown dialect or a malformed prefix.
    """
    switches = _dialects.bits(_dialects.parse(dialects))
    native = ffi.new("struct uoa_decoded *")
    stripped = ffi.new("uint8_t[]", max(len(packet), 1))
    trust = ffi.NULL if trusted is None else _trust.new_set(_trust.prefixes(trusted))
    try:
        reason = lib.uoa_decode(
            ffi.from_buffer(packet), len(packet), switches, trust, native, stripped
        )
    finally:
        lib.uoa_trust_free(trust)
    return _decoded(packet, REASONS[reason], native, stripped)


def _decoded(packet: bytes, reason: str, native: Any, stripped: Any) -> Decoded:
    is_udp = native.payload_off != 0
    found = reason == "found"
    dialect = DIALECTS[native.dialect]
    payload_end = native.payload_off + native.payload_len
    return Decoded(
        reason=reason,
        rule=ffi.string(lib.uoa_rule_place(native.rule)).decode(),
        rule_text=ffi.string(lib.uoa_rule_text(native.rule)).decode(),
        outer_src=_text(native.src, native.version) if is_udp else None,
        outer_sport=native.sport,
        outer_dst=_text(native.dst, native.version) if is_udp else None,
        outer_dport=native.dport,
        client=(_text(native.client, native.client_family), native.client_port) if found else None,
        dialect=dialect,
        vip=(_text(native.vip, native.vip_family), native.vip_port)
        if dialect in _WITH_VIP
        else None,
        vni=native.vni if dialect == "bd29" else None,
        payload_strip=native.strip,
        payload=packet[native.payload_off : payload_end],
        reached_opp=bool(native.reached_opp),
        stripped=bytes(ffi.buffer(stripped, native.stripped_len)) if native.stripped_len else None,
    )


def _claim(
    dialect: str | None, client: tuple[str, int], vip: tuple[str, int] | None, vni: int
) -> Any:
    if dialect not in DIALECTS:
        raise WireError(f"dialect: {dialect!r} is none of {', '.join(DIALECT_NAMES)}")
    claim = ffi.new("struct uoa_claim *")
    claim.dialect = DIALECTS.index(dialect)
    claim.vni = vni
    packed, _ = pack_host(client[0])
    ffi.memmove(claim.client, packed, 16)
    claim.client_port = client[1]
    claim.client_family = 6 if ":" in client[0] else 4
    if vip is not None:
        packed, _ = pack_host(vip[0])
        ffi.memmove(claim.vip, packed, 16)
        claim.vip_port = vip[1]
        claim.vip_family = 6 if ":" in vip[0] else 4
    return claim


def _part(dialect: str | None, outer: int, src: object, dst: object) -> int:
    if src is not None and dst is not None:
        return int(lib.UOA_PART_PACKET)
    if src is not None or dst is not None:
        raise WireError("src, dst: give both for a whole packet, or none of them")
    if dialect == "opp":
        return int(lib.UOA_PART_OPP)
    if dialect in _dialects.PAYLOAD:
        return int(lib.UOA_PART_PAYLOAD)
    return int(lib.UOA_PART_DST_OPTS if outer == 6 else lib.UOA_PART_OPTION)


def build(
    dialect: str | None,
    client: tuple[str, int] = ("0.0.0.0", 0),
    *,
    vip: tuple[str, int] | None = None,
    vni: int = 0,
    outer: int = 4,
    src: tuple[str, int] | None = None,
    dst: tuple[str, int] | None = None,
    payload: bytes = b"",
) -> bytes:
    """Build what a balancer writes for `client`: the opposite of decode().

    Without `src` and `dst` this is the part that the dialect adds: for options
    the IPv4 option (outer=4) or the whole IPv6 Destination Options header
    (outer=6; its Next Header is UDP), for opp the opp header, for ppv2 and spp
    the header in front of the payload. With them it is a whole IP packet around
    `payload`, with lengths and checksums. dialect=None builds a packet without
    any claim.

    Raises:
        WireError: the dialect has no such form, or the packet would be too long.
        ConfigurationError: an address is malformed.
    """
    for name, address in (("client", client), ("vip", vip), ("src", src), ("dst", dst)):
        if address is not None and not 0 <= address[1] <= 0xFFFF:
            raise ConfigurationError(f"{name}: port {address[1]} is not one of 0 to 65535")
    if not 0 <= vni <= 0xFFFFFFFF:
        raise WireError(f"vni: {vni} does not fit 32 bits")
    if outer not in (4, 6):
        raise WireError(f"outer: {outer} is neither 4 nor 6")
    claim = _claim(dialect, client, vip, vni)
    part = _part(dialect, outer, src, dst)
    out = ffi.new("uint8_t[]", _ROOM)
    length = lib.uoa_build(
        part,
        claim,
        ffi.NULL if src is None else to_native(src),
        ffi.NULL if dst is None else to_native(dst),
        ffi.from_buffer(payload),
        len(payload),
        out,
        _ROOM,
    )
    if length < 0:
        raise WireError(f"dialect {dialect!r}: no such packet for client {client[0]}")
    return bytes(ffi.buffer(out, length))


def build_local() -> bytes:
    """Build the PROXY v2 LOCAL header, with which a proxy speaks for itself."""
    out = ffi.new("uint8_t[]", 16)
    length = lib.uoa_build(
        lib.UOA_PART_LOCAL, ffi.new("struct uoa_claim *"), ffi.NULL, ffi.NULL, b"", 0, out, 16
    )
    return bytes(ffi.buffer(out, length))
