# SPDX-License-Identifier: MIT
"""Write sockopt-2051.json, the vectors of getsockopt() request 2051 (docs/wire-format.md, 2.7).

Every request and every reply is packed here from field values written down by hand.  No parser
and no table of the project has a part in it, so that the file can judge them all.

    make_sockopt_2051.py            write the file
    make_sockopt_2051.py --check    exit 1 when the file is not what would be written
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("sockopt-2051.json")

# Addresses of the requests and replies, as the 16 bytes they are on the wire.
ANY = bytes.fromhex("00000000000000000000000000000000")
ANY4 = bytes.fromhex("00000000000000000000ffff00000000")  # ::ffff:0.0.0.0
PEER4 = bytes.fromhex("00000000000000000000ffff0a0a0005")  # 10.10.0.5
LOCAL4 = bytes.fromhex("00000000000000000000ffff0a140009")  # 10.20.0.9
LOCAL4_B = bytes.fromhex("00000000000000000000ffff0a14000a")  # 10.20.0.10
PEER6 = bytes.fromhex("20010db8000a00000000000000000005")  # 2001:db8:a::5
LOCAL6 = bytes.fromhex("20010db8000b00000000000000000009")  # 2001:db8:b::9
LOCAL6_B = bytes.fromhex("20010db8000b0000000000000000000a")  # 2001:db8:b::a
CLIENT4 = bytes.fromhex("00000000000000000000ffffcb00714d")  # 203.0.113.77
CLIENT4_B = bytes.fromhex("00000000000000000000ffffcb007102")  # 203.0.113.2
CLIENT6 = bytes.fromhex("20010db8cafe00000000000000000077")  # 2001:db8:cafe::77
CLIENT6_B = bytes.fromhex("20010db8cafe00000000000000000078")  # 2001:db8:cafe::78
VIP4 = bytes.fromhex("00000000000000000000ffffc633640a")  # 198.51.100.10
VIP6 = bytes.fromhex("20010db8000f00000000000000000010")  # 2001:db8:f::10

# Rows of tables, as text.
V4 = {
    "src": "10.10.0.5",
    "sport": 40001,
    "dst": "10.20.0.9",
    "dport": 8080,
    "real_addr": "203.0.113.77",
    "real_port": 51234,
}
V6 = {
    "src": "2001:db8:a::5",
    "sport": 40001,
    "dst": "2001:db8:b::9",
    "dport": 8080,
    "real_addr": "2001:db8:cafe::77",
    "real_port": 51234,
}
NAT64 = {**V4, "real_addr": "2001:db8:cafe::77"}
NAT46 = {**V6, "real_addr": "203.0.113.77"}
BOTH = [V4, V6]

WILDCARD = 1  # Bit 0 of `flags`.
DIRTY = b"\xa5"


def request(
    peer: bytes,
    local: bytes,
    peer_port: int = 40001,
    local_port: int = 8080,
    version: int = 1,
    output: bytes = b"\x00",
    tail: bytes = b"",
) -> bytes:
    """Pack a request; `output` fills every byte that only the answer uses."""
    return b"".join(
        (
            struct.pack("<H", version),
            output * 6,  # flags, vni
            peer,
            local,
            struct.pack(">H", peer_port),
            struct.pack(">H", local_port),
            output * 44,  # dialect ... age
            tail,
        )
    )


def reply(
    peer: bytes,
    local: bytes,
    client: bytes,
    client_port: int = 51234,
    flags: int = 0,
    vni: int = 0,
    dialect: int = 1,
    vip: bytes = ANY,
    vip_port: int = 0,
    age: int = 0,
) -> dict[str, Any]:
    """Pack a reply to a request with the usual ports."""
    packed = b"".join(
        (
            struct.pack("<H", 1),
            struct.pack("<H", flags),
            struct.pack("<I", vni),
            peer,
            local,
            struct.pack(">H", 40001),
            struct.pack(">H", 8080),
            struct.pack("B", dialect),
            b"\x00",
            struct.pack(">H", client_port),
            client,
            vip,
            struct.pack(">H", vip_port),
            b"\x00\x00",
            struct.pack("<I", age),
        )
    )
    return {"ret": 0, "optlen": 88, "reply": packed.hex()}


def failure(errno: str) -> dict[str, Any]:
    """Return the expectation of a failed call."""
    return {"ret": -1, "errno": errno}


def vector(
    name: str,
    description: str,
    asked: bytes,
    table: list[dict[str, Any]],
    expect: dict[str, Any],
    level: int = 0,
) -> dict[str, Any]:
    """Return one vector; the buffer is as long as `optlen` says."""
    return {
        "name": name,
        "description": description,
        "kind": "sockopt",
        "level": level,
        "optname": 2051,
        "optlen": len(asked),
        "request": asked.hex(),
        "table": table,
        "expect": expect,
    }


def vectors() -> list[dict[str, Any]]:
    """Return all vectors."""
    v4, v4_any = request(PEER4, LOCAL4), request(PEER4, ANY)
    v6, v6_any = request(PEER6, LOCAL6), request(PEER6, ANY)
    enoent, einval, enotuniq = failure("ENOENT"), failure("EINVAL"), failure("ENOTUNIQ")
    hit_v4 = reply(PEER4, LOCAL4, CLIENT4)
    return [
        # The four pairs of outer and real family.
        vector("v4", "exact key, IPv4 as mapped", v4, BOTH, hit_v4),
        vector("v6", "exact key, IPv6", v6, BOTH, reply(PEER6, LOCAL6, CLIENT6)),
        vector("nat64", "IPv6 client, IPv4 outer", v4, [NAT64], reply(PEER4, LOCAL4, CLIENT6)),
        vector("nat46", "IPv4 client, IPv6 outer", v6, [NAT46], reply(PEER6, LOCAL6, CLIENT4)),
        # What else the table knows.
        vector(
            "dialect-ipo",
            "dialect 1",
            v4,
            [{**V4, "dialect": "ipo"}],
            reply(PEER4, LOCAL4, CLIENT4, dialect=1),
        ),
        vector(
            "dialect-opp",
            "dialect 2",
            v4,
            [{**V4, "dialect": "opp"}],
            reply(PEER4, LOCAL4, CLIENT4, dialect=2),
        ),
        vector(
            "dialect-bd31",
            "dialect 3, VIP and its port",
            v4,
            [{**V4, "dialect": "bd31", "vip_addr": "198.51.100.10", "vip_port": 443}],
            reply(PEER4, LOCAL4, CLIENT4, dialect=3, vip=VIP4, vip_port=443),
        ),
        vector(
            "dialect-bd30",
            "dialect 4, IPv6 VIP",
            v6,
            [{**V6, "dialect": "bd30", "vip_addr": "2001:db8:f::10", "vip_port": 443}],
            reply(PEER6, LOCAL6, CLIENT6, dialect=4, vip=VIP6, vip_port=443),
        ),
        vector(
            "dialect-bd29",
            "dialect 5, VNI in host order",
            v4,
            [{**V4, "dialect": "bd29", "vni": 0xABCDEF}],
            reply(PEER4, LOCAL4, CLIENT4, dialect=5, vni=0xABCDEF),
        ),
        vector(
            "vni-32bit",
            "VNI field is 32 bits wide",
            v6,
            [{**V6, "dialect": "bd29", "vni": 0xFFFFFFFE}],
            reply(PEER6, LOCAL6, CLIENT6, dialect=5, vni=0xFFFFFFFE),
        ),
        vector(
            "vip-nat64",
            "IPv6 client and VIP, IPv4 outer",
            v4,
            [{**NAT64, "dialect": "bd31", "vip_addr": "2001:db8:f::10", "vip_port": 65535}],
            reply(PEER4, LOCAL4, CLIENT6, dialect=3, vip=VIP6, vip_port=65535),
        ),
        vector(
            "client-port-256",
            "ports of client and VIP are in network order",
            v4,
            [
                {
                    **V4,
                    "real_port": 256,
                    "dialect": "bd31",
                    "vip_addr": "198.51.100.10",
                    "vip_port": 1,
                }
            ],
            reply(PEER4, LOCAL4, CLIENT4, client_port=256, dialect=3, vip=VIP4, vip_port=1),
        ),
        vector(
            "age",
            "age in milliseconds, host order",
            v4,
            [{**V4, "age": 66051}],
            reply(PEER4, LOCAL4, CLIENT4, age=66051),
        ),
        vector(
            "age-max",
            "largest age",
            v4,
            [{**V4, "age": 0xFFFFFFFF}],
            reply(PEER4, LOCAL4, CLIENT4, age=0xFFFFFFFF),
        ),
        vector(
            "age-saturates",
            "one more does not wrap to 0",
            v4,
            [{**V4, "age": 0x100000000}],
            reply(PEER4, LOCAL4, CLIENT4, age=0xFFFFFFFF),
        ),
        vector(
            "age-saturates-year",
            "a year of milliseconds",
            v6,
            [{**V6, "age": 31536000000}],
            reply(PEER6, LOCAL6, CLIENT6, age=0xFFFFFFFF),
        ),
        # Wildcards.
        vector(
            "wildcard-v4",
            ":: with an IPv4 peer; local comes back as it was asked",
            v4_any,
            BOTH,
            reply(PEER4, ANY, CLIENT4, flags=WILDCARD),
        ),
        vector(
            "wildcard-v4-mapped-any",
            "::ffff:0.0.0.0 with an IPv4 peer",
            request(PEER4, ANY4),
            BOTH,
            reply(PEER4, ANY4, CLIENT4, flags=WILDCARD),
        ),
        vector(
            "wildcard-v6",
            ":: with an IPv6 peer",
            v6_any,
            BOTH,
            reply(PEER6, ANY, CLIENT6, flags=WILDCARD),
        ),
        vector(
            "wildcard-v6-mapped-any",
            "::ffff:0.0.0.0 with an IPv6 peer",
            request(PEER6, ANY4),
            BOTH,
            reply(PEER6, ANY4, CLIENT6, flags=WILDCARD),
        ),
        vector(
            "wildcard-same-client",
            "two local addresses, one client: the newest entry",
            v4_any,
            [
                {**V4, "dialect": "ipo", "age": 5000},
                {**V4, "dst": "10.20.0.10", "dialect": "opp", "age": 100},
            ],
            reply(PEER4, ANY, CLIENT4, flags=WILDCARD, dialect=2, age=100),
        ),
        vector(
            "wildcard-two-clients",
            "two local addresses, two client addresses",
            v4_any,
            [V4, {**V4, "dst": "10.20.0.10", "real_addr": "203.0.113.2"}],
            enotuniq,
        ),
        vector(
            "wildcard-two-client-ports",
            "same client address, another port: another client",
            v4_any,
            [V4, {**V4, "dst": "10.20.0.10", "real_port": 51235}],
            enotuniq,
        ),
        vector(
            "wildcard-two-clients-v6",
            "the same with IPv6; the addresses differ in the last byte",
            v6_any,
            [V6, {**V6, "dst": "2001:db8:b::a", "real_addr": "2001:db8:cafe::78"}],
            enotuniq,
        ),
        vector(
            "wildcard-mapped-any-two-clients",
            "::ffff:0.0.0.0 is told as well",
            request(PEER4, ANY4),
            [V4, {**V4, "dst": "10.20.0.10", "real_addr": "203.0.113.2"}],
            enotuniq,
        ),
        vector(
            "wildcard-three-one-differs",
            "the one that differs is neither the oldest nor the newest",
            v4_any,
            [
                V4,
                {**V4, "dst": "10.20.0.10", "real_addr": "203.0.113.2"},
                {**V4, "dst": "10.20.0.11"},
            ],
            enotuniq,
        ),
        vector(
            "wildcard-differs-in-vip-only",
            "one client behind two VIPs is one client: the newest entry",
            v4_any,
            [
                {**V4, "dialect": "bd31", "vip_addr": "198.51.100.11", "vip_port": 443},
                {
                    **V4,
                    "dst": "10.20.0.10",
                    "dialect": "bd31",
                    "vip_addr": "198.51.100.10",
                    "vip_port": 443,
                },
            ],
            reply(PEER4, ANY, CLIENT4, flags=WILDCARD, dialect=3, vip=VIP4, vip_port=443),
        ),
        vector(
            "wildcard-other-ports-do-not-count",
            "other clients on another peer port and another local port",
            v4_any,
            [
                {**V4, "sport": 40002, "real_addr": "203.0.113.2"},
                V4,
                {**V4, "dport": 8081, "real_addr": "203.0.113.3"},
            ],
            reply(PEER4, ANY, CLIENT4, flags=WILDCARD),
        ),
        vector(
            "exact-among-two-clients-first",
            "an exact key is never ambiguous",
            v4,
            [V4, {**V4, "dst": "10.20.0.10", "real_addr": "203.0.113.2"}],
            hit_v4,
        ),
        vector(
            "exact-among-two-clients-second",
            "an exact key is never ambiguous",
            request(PEER4, LOCAL4_B),
            [V4, {**V4, "dst": "10.20.0.10", "real_addr": "203.0.113.2"}],
            reply(PEER4, LOCAL4_B, CLIENT4_B),
        ),
        vector(
            "exact-among-two-clients-v6",
            "an exact key is never ambiguous",
            request(PEER6, LOCAL6_B),
            [V6, {**V6, "dst": "2001:db8:b::a", "real_addr": "2001:db8:cafe::78"}],
            reply(PEER6, LOCAL6_B, CLIENT6_B),
        ),
        # Misses.
        vector("miss-empty-table", "nothing learned", v4, [], enoent),
        vector("miss-wildcard-empty-table", "nothing learned", v4_any, [], enoent),
        vector("miss-peer", "other peer", request(CLIENT4, LOCAL4), BOTH, enoent),
        vector("miss-local", "other local address", request(PEER4, LOCAL4_B), BOTH, enoent),
        vector("miss-peer-port", "other peer port", request(PEER4, LOCAL4, 40002), BOTH, enoent),
        vector(
            "miss-local-port", "other local port", request(PEER4, LOCAL4, 40001, 8081), BOTH, enoent
        ),
        vector(
            "miss-wildcard-local-port",
            "a wildcard address is no wildcard port",
            request(PEER4, ANY, 40001, 8081),
            BOTH,
            enoent,
        ),
        vector(
            "miss-ports-zero",
            "ports have no wildcard",
            request(PEER4, ANY, 0, 0),
            BOTH,
            enoent,
        ),
        vector(
            "miss-ports-host-order",
            "ports in host order",
            request(PEER4, LOCAL4, 0x419C, 0x901F),
            BOTH,
            enoent,
        ),
        vector("miss-peer-any", "a peer has no wildcard", request(ANY, LOCAL4), BOTH, enoent),
        vector(
            "miss-peer-unmapped",
            "IPv4 in the first 4 bytes, as 2048 has it",
            request(bytes.fromhex("0a0a0005") + bytes(12), ANY),
            BOTH,
            enoent,
        ),
        vector(
            "miss-v4-peer-v6-local",
            "IPv4 peer, plain IPv6 local address",
            request(PEER4, LOCAL6),
            BOTH,
            enoent,
        ),
        vector(
            "miss-v6-peer-v4-local",
            "IPv6 peer, mapped local address",
            request(PEER6, LOCAL4),
            BOTH,
            enoent,
        ),
        # The arguments.
        vector("version-0", "version 0", request(PEER4, LOCAL4, version=0), BOTH, einval),
        vector("version-2", "version 2", request(PEER4, LOCAL4, version=2), BOTH, einval),
        vector(
            "version-big-endian",
            "version 1 in network order",
            request(PEER4, LOCAL4, version=0x0100),
            BOTH,
            einval,
        ),
        vector(
            "version-257",
            "version is 16 bits wide",
            request(PEER4, LOCAL4, version=0x0101),
            BOTH,
            einval,
        ),
        vector(
            "version-2-miss",
            "the version is judged before the table is asked",
            request(PEER4, LOCAL4, version=2),
            [],
            einval,
        ),
        vector("len-0", "no buffer", b"", BOTH, einval),
        vector("len-58", "the length of 2048", v4[:58], BOTH, einval),
        vector("len-87", "one byte short", v4[:87], BOTH, einval),
        vector(
            "len-87-miss",
            "the length is judged before the table is asked",
            v4[:87],
            [],
            einval,
        ),
        vector(
            "len-100",
            "a longer buffer: 88 is returned",
            request(PEER4, LOCAL4, tail=bytes(12)),
            BOTH,
            hit_v4,
        ),
        vector("level-41", "level 41 is not served", v6, BOTH, failure("ENOPROTOOPT"), level=41),
        # What is in the buffer before the call.
        vector(
            "dirty",
            "garbage in every output byte, the two zero fields included: all overwritten",
            request(PEER4, LOCAL4, output=DIRTY),
            BOTH,
            hit_v4,
        ),
        vector(
            "dirty-wildcard",
            "garbage in the output bytes of a wildcard request: only bit 0 of flags is set",
            request(PEER6, ANY, output=b"\xff"),
            BOTH,
            reply(PEER6, ANY, CLIENT6, flags=WILDCARD),
        ),
        vector(
            "dirty-flags-exact",
            "bit 0 of flags in a request means nothing",
            request(PEER6, LOCAL6, output=b"\x01"),
            BOTH,
            reply(PEER6, LOCAL6, CLIENT6),
        ),
        vector(
            "dirty-long",
            "garbage in the output bytes and behind byte 88",
            request(PEER4, LOCAL4, output=DIRTY, tail=DIRTY * 12),
            BOTH,
            hit_v4,
        ),
        vector(
            "dirty-miss",
            "garbage does not turn a miss into a hit",
            request(PEER4, LOCAL4_B, output=DIRTY),
            BOTH,
            enoent,
        ),
    ]


def text() -> str:
    """Return the file's text: one vector on a line, as in the other files."""
    lines = ",\n".join(json.dumps(entry) for entry in vectors())
    head = '{"schema": "uoa-vectors/1", "suite": "sockopt-2051", "byte_order": "little"'
    return f'{head}, "vectors": [\n{lines}\n]}}\n'


def main(arguments: list[str]) -> int:
    """Write the file, or compare it."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    wanted = text().encode("ascii")
    if arguments:
        if FILE.is_file() and FILE.read_bytes() == wanted:
            return 0
        print(f"{FILE.name} is not what {Path(__file__).name} writes: run it", file=sys.stderr)
        return 1
    FILE.write_bytes(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
