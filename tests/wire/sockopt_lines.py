# SPDX-License-Identifier: MIT
"""Talk to the harness sockopt.c, and make getsockopt() requests that no vector has."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Mapping
from typing import Any, Final

from tests.wire.harness import DIALECT_NUMBERS, DIALECTS, MAPPED, Vector, address16

# Few values, so that requests meet flows and flows meet each other.
PEERS: Final = ("10.10.0.5", "2001:db8:a::5")
LOCALS: Final = ("10.20.0.9", "10.20.0.10", "2001:db8:b::9", "2001:db8:b::a")
CLIENTS: Final = ("203.0.113.77", "203.0.113.78", "2001:db8:cafe::77", "64:ff9b::cb00:714d")
VIPS: Final = ("198.51.100.10", "2001:db8:f::10", "64:ff9b::c633:640a")
PORTS: Final = (40001, 40002)
LAYOUTS: Final = ((2048, 58), (2048, 18), (2049, 40), (2050, 44), (2051, 88))


def flow(row: Mapping[str, Any]) -> str:
    """Return a row of a vector's table as the harness reads it."""
    fields = (
        address16(row["src"]).hex(),
        row["sport"],
        address16(row["dst"]).hex(),
        row["dport"],
        address16(row["real_addr"]).hex(),
        row["real_port"],
        address16(row["vip_addr"]).hex() if "vip_addr" in row else "-",
        row.get("vip_port", 0),
        row.get("vni", 0),
        DIALECT_NUMBERS[row.get("dialect", "ipo")],
        row.get("age", 0),
    )
    return ",".join(map(str, fields))


def request_of(vector: Vector) -> str:
    """Return the line that asks what a sockopt vector asks."""
    prefix = vector.get("config", {}).get("v6_to_v4_prefix")
    fields = (
        vector["level"],
        vector["optname"],
        vector["optlen"],
        vector["request"] or "-",
        ipaddress.IPv6Network(prefix).network_address.packed[:12].hex() if prefix else "-",
        *map(flow, vector["table"]),
    )
    return " ".join(map(str, fields))


def answer_to(vector: Vector, expect: Mapping[str, Any]) -> str:
    """Return the line that an `expect` object stands for.

    Bytes behind the answer stay as they were; a failure leaves buffer and length alone.
    """
    asked: str = vector["request"]
    if expect["ret"] != 0:
        return f"{expect['errno']} {vector['optlen']} {asked or '-'}"
    reply: str = expect["reply"]
    return f"OK {expect['optlen']} {reply}{asked[len(reply) :]}"


def random_row(rnd: random.Random) -> dict[str, Any]:
    """Return a flow; what it does not say is left out, as in the vectors."""
    row: dict[str, Any] = {
        "src": rnd.choice(PEERS),
        "sport": rnd.choice(PORTS),
        "dst": rnd.choice(LOCALS),
        "dport": 8080,
        "real_addr": rnd.choice(CLIENTS),
        "real_port": rnd.choice((51234, 51235, 0)),
        "dialect": rnd.choice(DIALECTS[:5]),
        "age": rnd.choice((0, 1, 7, 2**32)),
    }
    if rnd.random() < 0.6:
        row |= {"vip_addr": rnd.choice(VIPS), "vip_port": rnd.choice((443, 443, 0))}
    if rnd.random() < 0.3:
        row["vni"] = rnd.randrange(2**32)
    return row


def random_vector(rnd: random.Random) -> Vector:
    """Return a request that often finds something in the table that goes with it."""
    optname, length = rnd.choice(LAYOUTS)
    request = random_request(rnd, length)
    if rnd.random() < 0.1:
        at = rnd.randrange(len(request))
        request = request[:at] + rnd.randbytes(1) + request[at + 1 :]
    if rnd.random() < 0.1:
        request += rnd.randbytes(rnd.randrange(8))
    vector: Vector = {
        "level": rnd.choice((0,) * 30 + (41,)),
        "optname": optname,
        "optlen": rnd.randrange(len(request) + 1) if rnd.random() < 0.05 else len(request),
        "request": request.hex(),
        "table": [random_row(rnd) for _ in range(rnd.randrange(6))],
    }
    if rnd.random() < 0.5:
        vector["config"] = {"v6_to_v4_prefix": "64:ff9b::/96"}
    return vector


def random_request(rnd: random.Random, length: int) -> bytes:
    """Pack a question about one of the flows that a table may have, in the layout of a length."""
    peer = address16(rnd.choice(PEERS))
    ipv4 = peer[:12] == MAPPED
    fitting = [local for local in map(address16, LOCALS) if (local[:12] == MAPPED) == ipv4]
    local = rnd.choice((*fitting, bytes(16), MAPPED + bytes(4)))
    if rnd.random() < 0.1:
        local = address16(rnd.choice(LOCALS))
    peer_port = rnd.choice(PORTS)
    ports = peer_port.to_bytes(2, "big") + (8080).to_bytes(2, "big")
    out = rnd.randbytes(64)

    if length == 88:
        return b"\x01\x00" + out[:6] + peer + local + ports + out[6:50]
    if length == 18:
        return peer[12:] + local[12:] + ports + out[:6]
    if ipv4 and rnd.random() < 0.7:  # Else an IPv4 peer is asked for as mapped.
        peer, local = peer[12:], local[12:]
    short = len(peer) == 4
    if length == 58:
        family = 2 if short else 10
        fixed = peer.ljust(16, b"\x00") + local.ljust(16, b"\x00")
        return family.to_bytes(2, "little") + fixed + ports + out[:20]
    kind = (0 if short else 1).to_bytes(4, "little")
    addresses = peer + local + out[: 32 - 2 * len(peer)]
    if length == 40:
        return kind + ports + addresses
    host_order = peer_port.to_bytes(2, "little") + (8080).to_bytes(2, "little")
    return kind + out[:4] + host_order + addresses
