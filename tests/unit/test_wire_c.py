# SPDX-License-Identifier: MIT
"""The parser and the builder of user space, under sanitizers, against vectors and reference."""

from __future__ import annotations

import errno

import pytest

from tests.capability import need
from tests.fuzz.mutate import Mutator
from tests.reference import decoder
from tests.wire import harness, stream_lines
from tests.wire.build import SANITIZED, build
from tests.wire.build_lines import (
    CLIENT_PORT,
    CLIENTS,
    DESTINATIONS,
    DST_OPTS,
    LOCAL,
    OPP,
    OPTION,
    PACKET,
    PAYLOAD,
    SOURCES,
    VIP_PORT,
    VIPS,
    VNI,
    Build,
    build_all,
    packets,
    parts,
    plain,
    refused,
)
from tests.wire.harness import address16

MUTATED = 4000


@pytest.fixture(params=["gcc", "clang"])
def compiler(request: pytest.FixtureRequest) -> str:
    """Name a compiler that is here."""
    name: str = request.param
    need(name)
    return name


@pytest.mark.parametrize("suite", harness.PACKET_SUITES)
def test_vectors(compiler: str, suite: str) -> None:
    """Every key of `expect` is what the parser says, and no sanitizer finds anything."""
    program = build("vectors", *SANITIZED, compiler=compiler)
    vectors = harness.load([suite])
    outcomes = harness.decode(program, [harness.request_of(vector) for vector in vectors])
    for vector, outcome in zip(vectors, outcomes, strict=True):
        assert outcome.expect() == harness.canonical(vector["expect"]), vector["name"]


def test_mutated_packets(compiler: str) -> None:
    """Parser and reference agree on packets that no vector has."""
    program = build("vectors", *SANITIZED, compiler=compiler)
    mutator = Mutator(1, harness.load(harness.PACKET_SUITES))
    cases = [mutator.next() for _ in range(MUTATED)]
    outcomes = harness.decode(program, [harness.request(*case) for case in cases])
    for case, outcome in zip(cases, outcomes, strict=True):
        assert outcome.expect() == decoder.decode(*case), harness.request(*case)


def test_reads_that_fail(compiler: str) -> None:
    """The walk reads inside of the packet only, and a read that fails leaves no claim."""
    program = build("reads", *SANITIZED, compiler=compiler)
    mutator = Mutator(2, harness.load(harness.OPTION_SUITES))
    lines = [harness.request_of(vector) for vector in harness.load(harness.OPTION_SUITES)]
    lines += [harness.request(*mutator.next()) for _ in range(MUTATED)]
    seen: set[str] = set()
    for line, answer in zip(lines, harness.ask(program, lines), strict=True):
        reads, _, reasons = answer.partition(" ")
        outcomes = reasons.rstrip(",").split(",") if reasons else []
        assert reads == str(len(outcomes)), f"{line}: {answer}"
        seen.update(outcomes)
    assert seen == {"truncated", "malformed"}


def test_streams(compiler: str) -> None:
    """Parser and reference agree on the start of a TCP connection, and how much is wanted."""
    program = build("streams", *SANITIZED, compiler=compiler)
    starts = list(stream_lines.starts())
    answers = harness.ask(program, [stream_lines.line_of(start) for start in starts])
    seen: set[object] = set()
    for start, answer in zip(starts, answers, strict=True):
        outcome = stream_lines.outcome(answer)
        assert outcome == decoder.decode_stream(start, stream_lines.SENDER), start.hex()
        seen.add("wanted" if isinstance(outcome, int) else outcome.get("reason", "found"))
    assert seen == {
        "absent", "checksum", "found", "invalid_addr", "local", "malformed", "unsupported",
        "wanted",
    }  # fmt: skip


def udp_of(packet: bytes) -> bytes:
    """Return the UDP header and payload of a built packet."""
    found = decoder.find_transport(packet, frozenset({"opp"}))
    at = found.offset
    if found.protocol == decoder.OPP:
        at += int.from_bytes(packet[at + 2 : at + 4], "big")
    return packet[at : found.end]


def pseudo_header(packet: bytes, udp_len: int) -> bytes:
    """Return the pseudo header of the UDP checksum."""
    found = decoder.find_transport(packet, frozenset({"opp"}))
    return found.source + found.destination + b"\x00\x11" + udp_len.to_bytes(2, "big")


def is_summed(data: bytes) -> bool:
    """Tell whether the Internet checksum inside of the data is right (RFC 1071)."""
    return decoder.internet_checksum(data + bytes(len(data) % 2)) == 0


def vip_written(build: Build) -> tuple[str, int] | None:
    """Return the VIP that stands in a built packet, None where the dialect has no room for one."""
    if build.dialect not in ("bd31", "bd30", "ppv2", "spp"):
        return None
    vip = VIPS[build.vip_family] if build.vip_family else "::"
    ipv6 = 6 in (build.family, build.vip_family)
    if build.dialect == "ppv2":
        # One family for both addresses; none is zeros of the client's.
        vip = decoder.address_text(address16(vip)) if ipv6 else vip.replace("::", "0.0.0.0")
    elif build.dialect != "spp" and build.vip_family != build.family:
        vip = {4: "0.0.0.0", 6: "::"}[build.family]
    return vip, VIP_PORT if build.vip_family else 0


def test_packets_built(compiler: str) -> None:
    """The reference reads out of a built packet the claim that was put in, checksums right."""
    program = build("builds", *SANITIZED, compiler=compiler)
    for case, length, packet in build_all(program, packets()):
        assert length == len(packet) > 0, case
        client = CLIENTS[case.family]
        if case.dialect == "ppv2" and 6 in (case.family, case.vip_family):
            client = decoder.address_text(address16(client))
        expect: dict[str, object] = {
            "found": True,
            "real_addr": client,
            "real_port": CLIENT_PORT,
            "dialect": case.dialect,
            "outer_src": SOURCES[case.source_family],
            "outer_sport": 40001,
            "outer_dst": DESTINATIONS[case.destination_family],
            "outer_dport": 8080,
        }
        if vip := vip_written(case):
            expect |= {"vip_addr": vip[0], "vip_port": vip[1]}
        if case.dialect == "bd29":
            expect["vni"] = VNI
        got = decoder.decode(packet, sorted(harness.SWITCHES))
        assert (got.pop("stripped", None) is not None) == (case.dialect == "opp")
        strip = got.pop("payload_strip", 0)
        assert got == expect, case
        udp = udp_of(packet)
        assert isinstance(strip, int)
        assert udp[8 + strip :] == case.payload, case
        assert is_summed(pseudo_header(packet, len(udp)) + udp), case
        if case.source_family == 4:
            assert is_summed(packet[: (packet[0] & 15) * 4]), case


def test_packets_refused(compiler: str) -> None:
    """No packet is built of two families, or longer than its length fields can say."""
    program = build("builds", *SANITIZED, compiler=compiler)
    for case, length, _ in build_all(program, refused()):
        assert length == -errno.EINVAL, case._replace(payload=b"")
    fitting = Build(PACKET, "ipo", 4, payload=bytes(65535 - 20 - 8 - 8))
    for _, length, packet in build_all(program, [fitting]):
        assert length == len(packet) == 65535
    no_room = [Build(PACKET, "ipo", 4, room=139), Build(PACKET, "ipo", 4, payload=b"1", room=140)]
    for case, length, _ in build_all(program, no_room):
        assert length == -errno.EMSGSIZE, case


def test_packet_without_claim(compiler: str) -> None:
    """A packet of no dialect has no claim, and a checksum of 0 is written as all ones."""
    program = build("builds", *SANITIZED, compiler=compiler)
    for case, _, packet in build_all(program, plain()):
        udp = udp_of(packet)
        assert udp[8:] == case.payload
        assert udp[6:8] != bytes(2)
        assert is_summed(pseudo_header(packet, len(udp)) + udp)
        got = decoder.decode(packet, sorted(harness.SWITCHES))
        assert got == {"found": False, "reason": "absent"}
    assert udp[6:8] == b"\xff\xff"


# The lengths that docs/wire-format.md section 1 draws: (IPv4 client, IPv6 client).
LENGTHS = {
    OPTION: {"ipo": (8, 20), "opp": (8, 20), "bd31": (16, 40), "bd30": (16, 40), "bd29": (16, 32)},
    DST_OPTS: {"ipo": (16, 24), "bd31": (16, 40), "bd30": (16, 40), "bd29": (16, 32)},
    OPP: {"opp": (12, 24)},
    PAYLOAD: {"ppv2": (28, 52), "spp": (38, 38)},
    LOCAL: dict.fromkeys(harness.DIALECTS, (16, 16)),
}


def test_parts_built(compiler: str) -> None:
    """A part has the length of its drawing and fits room of that length, or is refused by name."""
    program = build("builds", *SANITIZED, compiler=compiler)
    for case, length, data in build_all(program, parts()):
        lengths = LENGTHS[case.part].get(case.dialect)
        if lengths is None:
            assert length == -errno.EINVAL, case
            continue
        right = lengths[case.family == 6]
        assert length == len(data) == right, case
        exact, short = case._replace(room=right), case._replace(room=right - 1)
        assert [(length, data) for _, length, data in build_all(program, [exact, short])] == [
            (right, data),
            (-errno.EMSGSIZE, b""),
        ], case
