# SPDX-License-Identifier: MIT
"""uoa.wire: packets in both directions, and the rule that each outcome names."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import uoa
from uoa import wire
from uoa._native import ffi, lib

ROOT = Path(__file__).parents[2]
SUITES = ("bytedance", "ipo-ipv4", "ipo-ipv6", "opp", "ppv2", "spp")

Address = tuple[str, int]


def _packet_vectors() -> list[Any]:
    found = []
    for suite in SUITES:
        text = (ROOT / "tests" / "vectors" / f"{suite}.json").read_text(encoding="utf-8")
        found += [
            pytest.param(vector, id=f"{suite}/{vector['name']}")
            for vector in json.loads(text)["vectors"]
            if vector["kind"] == "packet"
        ]
    return found


VECTORS = _packet_vectors()


def _decode(vector: dict[str, Any]) -> wire.Decoded:
    config = vector["config"]
    packet = bytes.fromhex(vector["packet"])
    return wire.decode(packet, config["dialects"], config.get("trusted"))


def _packed(host: str) -> bytes:
    """Return 16 bytes, an IPv4 host as mapped: how the rules compare addresses."""
    address = ipaddress.ip_address(host)
    return b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed


class TestDecode:
    """decode() and Decoded.as_dict()."""

    @pytest.mark.parametrize("vector", VECTORS)
    def test_every_vector_is_decoded_as_expected(self, vector: dict[str, Any]) -> None:
        """as_dict() is the `expect` object of the vector, key for key."""
        assert _decode(vector).as_dict() == vector["expect"]

    def test_vectors_reach_every_reason_and_dialect(self) -> None:
        """The vectors above leave no outcome of the parser untried."""
        decoded = [_decode(param.values[0]) for param in VECTORS]

        assert {each.reason for each in decoded} == set(wire.REASONS)
        assert {each.dialect for each in decoded} == {*wire.DIALECT_NAMES, None}

    @pytest.mark.parametrize("vector", [v for v in VECTORS if v.values[0]["expect"]["found"]])
    def test_a_cut_packet_yields_nothing(self, vector: dict[str, Any]) -> None:
        """However a good packet is cut within its own length, no address comes of it."""
        packet = bytes.fromhex(vector["packet"])
        length = int.from_bytes(packet[2:4], "big")
        if packet[0] >> 4 == 6:
            length = 40 + int.from_bytes(packet[4:6], "big")

        for end in range(length):
            decoded = wire.decode(packet[:end], vector["config"]["dialects"])
            assert decoded.reason == "truncated"
            assert decoded.client is None

    def test_bytes_behind_the_packet_change_nothing(self) -> None:
        """What a link layer pads with is no part of the packet."""
        packet = wire.build("ipo", ("203.0.113.7", 9), src=("10.0.0.5", 1), dst=("10.0.0.9", 2))

        assert wire.decode(packet + b"\x1f\x08\xff\xff") == wire.decode(packet)

    def test_a_packet_that_is_no_udp_has_no_outer_addresses(self) -> None:
        """Ports exist in UDP only, so a TCP packet has neither ports nor a flow."""
        packet = bytearray(wire.build(None, src=("10.0.0.5", 1), dst=("10.0.0.9", 2)))
        packet[9] = 6

        decoded = wire.decode(bytes(packet))

        assert decoded.reason == "not_udp"
        assert (decoded.outer_src, decoded.outer_dst, decoded.payload) == (None, None, b"")

    def test_trust_is_judged_by_the_outer_source(self) -> None:
        """A claim counts only when its sender is in one of the prefixes."""
        packet = wire.build("ipo", ("203.0.113.7", 9), src=("10.0.0.5", 1), dst=("10.0.0.9", 2))

        assert wire.decode(packet, trusted="10.0.0.0/24").found
        assert wire.decode(packet, trusted=["192.0.2.0/24", "10.0.0.5"]).found
        assert wire.decode(packet, trusted="203.0.113.0/24").reason == "untrusted"
        assert wire.decode(packet, trusted=[]).reason == "untrusted"

    def test_an_unknown_dialect_is_refused_by_name(self) -> None:
        """The message names the word and what could stand there."""
        with pytest.raises(uoa.ConfigurationError, match=r"'toa' is none of ipo, opp, bd"):
            wire.decode(b"", "ipo,toa")

    def test_a_malformed_prefix_is_refused_by_name(self) -> None:
        """The message names the prefix."""
        with pytest.raises(uoa.TrustError, match=r"'10\.0\.0\.1/8'"):
            wire.decode(b"", trusted=["10.0.0.1/8"])


class TestRules:
    """Each outcome names a rule, and the rule can be read."""

    @staticmethod
    def _rules() -> dict[str, set[str]]:
        """Return what each place says, by place; the numbers have no gap."""
        rules: dict[str, set[str]] = {}
        number = 0
        while place := lib.uoa_rule_place(number):
            text = ffi.string(lib.uoa_rule_text(number)).decode()
            rules.setdefault(ffi.string(place).decode(), set()).add(text)
            number += 1
        return rules

    @pytest.mark.parametrize("vector", VECTORS)
    def test_every_outcome_has_a_rule(self, vector: dict[str, Any]) -> None:
        """A decision without a place and a sentence could not be looked up."""
        decoded = _decode(vector)

        assert decoded.rule_text in self._rules()[decoded.rule]

    def test_every_rule_stands_in_the_specification(self) -> None:
        """The place that a rule names is a row or a section of docs/wire-format.md."""
        text = (ROOT / "docs" / "wire-format.md").read_text(encoding="utf-8")
        sections = dict(re.findall(r"(?ms)^### (\d\.\d) (.*?)(?=^### |^## |\Z)", text))

        for place in self._rules():
            section, _, row = place.partition(" ")
            assert section in sections, place
            if row.startswith("row "):
                assert f"\n| {row.removeprefix('row ')} |" in sections[section], place
            else:
                assert row in ("", "rule A"), place


# Every dialect in every family that it has, as the drawings of docs/wire-format.md section 1
# have it, written by hand: client 203.0.113.77 or 2001:db8::77, port 51234 (c822), VIP
# 198.51.100.10 or 2001:db8::10, port 443 (01bb), VNI 0x0a0b0c0d.
CLIENT4, CLIENT6 = ("203.0.113.77", 51234), ("2001:db8::77", 51234)
VIP4, VIP6 = ("198.51.100.10", 443), ("2001:db8::10", 443)
C4, C6 = "cb00714d", "20010db8000000000000000000000077"
V4, V6 = "c633640a", "20010db8000000000000000000000010"
SIGNATURE = "0d0a0d0a000d0a515549540a"
MAPPED = "00000000000000000000ffff"
DRAWN = [
    ("ipo", 4, CLIENT4, None, f"1f08 c822 {C4}"),
    ("ipo", 4, CLIENT6, None, f"1f14 c822 {C6}"),
    ("ipo", 6, CLIENT4, None, f"1101 1f06 c822 {C4} 0104 00000000"),
    ("ipo", 6, CLIENT6, None, f"1102 1f12 c822 {C6} 0100"),
    ("opp", 4, CLIENT4, None, f"1011000c 1f08 c822 {C4}"),
    ("opp", 6, CLIENT4, None, f"1011000c 1f08 c822 {C4}"),
    ("opp", 4, CLIENT6, None, f"20110018 1f14 c822 {C6}"),
    ("opp", 6, CLIENT6, None, f"20110018 1f14 c822 {C6}"),
    ("bd31", 4, CLIENT4, VIP4, f"1f100000 c822 01bb {C4} {V4}"),
    ("bd31", 4, CLIENT6, VIP6, f"1f280100 c822 01bb {C6} {V6}"),
    ("bd31", 6, CLIENT4, VIP4, f"1101 1f0c c822 01bb {C4} {V4}"),
    ("bd31", 6, CLIENT6, VIP6, f"1104 1f24 c822 01bb {C6} {V6}"),
    ("bd30", 4, CLIENT4, VIP4, f"1e100000 c822 01bb {C4} {V4}"),
    ("bd30", 6, CLIENT6, VIP6, f"1104 1e24 c822 01bb {C6} {V6}"),
    ("bd29", 4, CLIENT4, None, f"1d100000 0a0b0c0d c822 0000 {C4}"),
    ("bd29", 4, CLIENT6, None, f"1d200100 0a0b0c0d c822 0000 {C6} 00000000"),
    ("bd29", 6, CLIENT4, None, f"1101 1d0c 0a0b0c0d c822 0000 {C4}"),
    ("bd29", 6, CLIENT6, None, f"1103 1d1c 0a0b0c0d c822 0000 {C6} 00000000"),
    ("ppv2", 4, CLIENT4, VIP4, f"{SIGNATURE} 2112 000c {C4} {V4} c822 01bb"),
    ("ppv2", 6, CLIENT6, VIP6, f"{SIGNATURE} 2122 0024 {C6} {V6} c822 01bb"),
    ("ppv2", 4, CLIENT4, VIP6, f"{SIGNATURE} 2122 0024 {MAPPED}{C4} {V6} c822 01bb"),
    ("spp", 4, CLIENT4, VIP4, f"56ec {MAPPED}{C4} {MAPPED}{V4} c822 01bb"),
    ("spp", 6, CLIENT6, VIP4, f"56ec {C6} {MAPPED}{V4} c822 01bb"),
]


class TestBuild:
    """build() and build_local()."""

    @pytest.mark.parametrize(("dialect", "outer", "client", "vip", "drawn"), DRAWN)
    def test_parts_are_built_as_they_are_drawn(
        self, dialect: str, outer: int, client: Address, vip: Address | None, drawn: str
    ) -> None:
        """What a dialect adds is, byte for byte, what the specification draws."""
        built = wire.build(dialect, client, vip=vip, vni=0x0A0B0C0D, outer=outer)

        assert built.hex() == drawn.replace(" ", "")

    def test_a_vip_of_the_other_family_is_zero_in_a_bd_option(self) -> None:
        """These options have room for one family, the client's."""
        built = wire.build("bd31", CLIENT4, vip=VIP6)

        assert built.hex() == f"1f100000c82201bb{C4}00000000"

    def test_the_local_header_is_for_the_proxy_itself(self) -> None:
        """It names no client, and is taken off the payload."""
        header = wire.build_local()
        packet = wire.build(None, src=("10.0.0.5", 1), dst=("10.0.0.9", 2), payload=header + b"?")

        decoded = wire.decode(packet)

        assert header.hex() == SIGNATURE + "20000000"
        assert (decoded.reason, decoded.payload_strip, decoded.client) == ("local", 16, None)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"dialect": "toa"}, "'toa' is none of ipo, opp, bd31, bd30, bd29, ppv2, spp"),
            ({"dialect": "bd"}, "'bd' is none of"),
            ({"dialect": None}, "no such packet"),
            ({"src": ("10.0.0.5", 1)}, "give both"),
            ({"dst": ("10.0.0.5", 1)}, "give both"),
            ({"src": ("10.0.0.5", 1), "dst": ("::1", 2)}, "no such packet"),
            ({"src": ("::1", 1), "dst": ("::1", 2), "payload": bytes(65536)}, "no such packet"),
            ({"vni": 1 << 32}, "vni: 4294967296"),
            ({"vni": -1}, "vni: -1"),
            ({"outer": 5}, "outer: 5"),
        ],
    )
    def test_what_cannot_be_built_is_refused(self, arguments: dict[str, Any], message: str) -> None:
        """WireError says what is wrong with the arguments."""
        with pytest.raises(uoa.WireError, match=re.escape(message)):
            wire.build(**({"dialect": "ipo", "client": CLIENT4} | arguments))

    @pytest.mark.parametrize("name", ["client", "vip", "src", "dst"])
    @pytest.mark.parametrize("address", [("example.org", 1), ("10.0.0.256", 1), ("::g", 1)])
    def test_malformed_hosts_are_refused(self, name: str, address: Address) -> None:
        """A host is an address: ConfigurationError repeats what was given."""
        arguments: dict[str, Any] = {"client": CLIENT4, "src": CLIENT4, "dst": CLIENT4}

        with pytest.raises(uoa.ConfigurationError, match=re.escape(repr(address[0]))):
            wire.build("ipo", **(arguments | {name: address}))

    @pytest.mark.parametrize("name", ["client", "vip", "src", "dst"])
    @pytest.mark.parametrize("port", [-1, 65536])
    def test_ports_out_of_range_are_refused(self, name: str, port: int) -> None:
        """ConfigurationError names the argument and the port."""
        arguments: dict[str, Any] = {"client": CLIENT4, "src": CLIENT4, "dst": CLIENT4}

        with pytest.raises(uoa.ConfigurationError, match=f"^{name}: port {port} "):
            wire.build("ipo", **(arguments | {name: ("10.0.0.5", port)}))


# ---- There and back ----------------------------------------------------------------


def _can_be_client(host: str) -> bool:
    """Rule A, said once more, in the words of the ipaddress module."""
    address = ipaddress.ip_address(host)
    if address.version == 6:
        mapped = address.ipv4_mapped
        if mapped is None:
            return not (address.is_unspecified or address.is_loopback or address.is_multicast)
        address = mapped
    refused = ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32")
    return not any(address in ipaddress.ip_network(prefix) for prefix in refused)


ports = st.integers(1, 65535)


def hosts(family: int) -> st.SearchStrategy[str]:
    """Make addresses of a family, mapped ones among those of IPv6."""
    if family == 4:
        return st.ip_addresses(v=4).map(str)
    mapped = st.ip_addresses(v=4).map(lambda address: f"::ffff:{address}")
    return st.ip_addresses(v=6).map(str) | mapped


def clients(family: int) -> st.SearchStrategy[Address]:
    """Make addresses that a client can have."""
    return st.tuples(hosts(family).filter(_can_be_client), ports)


@pytest.mark.parametrize("dialect", wire.DIALECT_NAMES)
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("family", [4, 6])
class TestRoundTrip:
    """What build() makes, decode() reads."""

    @settings(max_examples=60, deadline=None, database=None)
    @given(data=st.data())
    def test_decode_reads_what_build_wrote(
        self, dialect: str, outer: int, family: int, data: st.DataObject
    ) -> None:
        """Each dialect carries each client over each outer family, and loses nothing it has."""
        client = data.draw(clients(family), "client")
        vip = data.draw(st.tuples(hosts(family), ports), "vip")
        vni = data.draw(st.integers(0, 2**32 - 1), "vni")
        # A mapped outer address would make an IPv4 packet.
        wires = st.ip_addresses(v=4) if outer == 4 else st.ip_addresses(v=6).filter(_not_mapped)
        src = (str(data.draw(wires, "src")), data.draw(ports))
        dst = (str(data.draw(wires, "dst")), data.draw(ports))
        payload = data.draw(st.binary(max_size=64).filter(_is_no_header), "payload")

        packet = wire.build(dialect, client, vip=vip, vni=vni, src=src, dst=dst, payload=payload)
        switch = "bd" if dialect.startswith("bd") else dialect
        decoded = wire.decode(packet, switch)

        assert (decoded.reason, decoded.dialect) == ("found", dialect)
        assert (decoded.outer_src, decoded.outer_sport) == src
        assert (decoded.outer_dst, decoded.outer_dport) == dst
        assert decoded.client is not None
        assert _packed(decoded.client[0]) == _packed(client[0])
        assert decoded.client[1] == client[1]
        if dialect in ("bd31", "bd30", "ppv2", "spp"):
            assert decoded.vip is not None
            assert _packed(decoded.vip[0]) == _packed(vip[0])
            assert decoded.vip[1] == vip[1]
        else:
            assert decoded.vip is None
        assert decoded.vni == (vni if dialect == "bd29" else None)
        assert decoded.payload[decoded.payload_strip :] == payload
        plain = wire.build(None, src=src, dst=dst, payload=payload)
        assert decoded.stripped == (plain if dialect == "opp" else None)
        # The dialect alone is off: nothing is seen of it.
        others = [name for name in wire.SWITCHES if name != switch]
        assert wire.decode(packet, others).reason == ("not_udp" if dialect == "opp" else "absent")

    def test_the_whole_packet_holds_the_part(self, dialect: str, outer: int, family: int) -> None:
        """Without addresses build() returns the bytes that stand in the packet with them."""
        client, vip = (CLIENT4, VIP4) if family == 4 else (CLIENT6, VIP6)
        src, dst = (("10.0.0.5", 1), ("10.0.0.9", 2)) if outer == 4 else (("::5", 1), ("::9", 2))

        part = wire.build(dialect, client, vip=vip, outer=outer)
        packet = wire.build(dialect, client, vip=vip, src=src, dst=dst, payload=b"tail")

        header = 20 if outer == 4 else 40
        at = header + 8 if dialect in ("ppv2", "spp") else header
        assert packet[at : at + len(part)] == part

    @pytest.mark.parametrize("size", [0, 1, 2, 501])
    def test_checksums_are_right(self, dialect: str, outer: int, family: int, size: int) -> None:
        """A stack takes the packet: header and UDP checksums are those of RFC 791 and 768."""
        client, vip = (CLIENT4, VIP4) if family == 4 else (CLIENT6, VIP6)
        src, dst = (("10.0.0.5", 1), ("10.0.0.9", 2)) if outer == 4 else (("::5", 1), ("::9", 2))

        packet = wire.build(
            dialect, client, vip=vip, src=src, dst=dst, payload=bytes(range(250, 256)) * size
        )

        decoded = wire.decode(packet)
        udp = packet[len(packet) - 8 - len(decoded.payload) :]
        addresses = packet[12:20] if outer == 4 else packet[8:40]
        pseudo = addresses + bytes([0, 17]) + len(udp).to_bytes(2, "big")
        assert _ones_sum(pseudo + udp) == 0xFFFF
        if outer == 4:
            assert _ones_sum(packet[: (packet[0] & 15) * 4]) == 0xFFFF


def _is_no_header(payload: bytes) -> bool:
    return not payload.startswith((b"\x56\xec", b"\r\n\r\n\0\r\nQUIT\n"))


def _not_mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.version == 4 or address.ipv4_mapped is None


def _ones_sum(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total
