# SPDX-License-Identifier: MIT
"""The reference answer to a getsockopt() request, for the four layouts and ours.

Section numbers are those of docs/wire-format.md.  Fields in host order are little-endian here, as
in the vectors.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

IPPROTO_IP: Final = 0
AF_INET: Final = 2
AF_INET6: Final = 10

MAPPED: Final = bytes(10) + b"\xff\xff"
ANY: Final = bytes(16)
MAPPED_ANY: Final = MAPPED + bytes(4)

DIALECT_NUMBERS: Final = {"ipo": 1, "opp": 2, "bd31": 3, "bd30": 4, "bd29": 5}
FLAG_WILDCARD: Final = 0x0001
AGE_MAX: Final = 0xFFFFFFFF


class FailedError(Exception):
    """The call returns -1 with this errno and leaves buffer and length alone (2.6)."""

    def __init__(self, errno: str) -> None:
        super().__init__(errno)
        self.errno = errno


class Flow(NamedTuple):
    """A learned flow; addresses are 16 bytes, IPv4 as mapped, so that the two families compare."""

    peer: bytes
    peer_port: int
    local: bytes
    local_port: int
    client: bytes
    client_port: int
    vip: bytes
    """`::` if unknown."""
    vip_port: int
    vni: int
    dialect: str
    age: int
    """Milliseconds."""


def answer(
    level: int,
    optname: int,
    optlen: int,
    request: bytes,
    table: Sequence[Mapping[str, Any]],
    v6_to_v4_prefix: str | None = None,
) -> dict[str, object]:
    """Answer getsockopt(fd, level, optname, request, &optlen).

    Args:
        level: as given to the call.
        optname: as given to the call.
        optlen: as given to the call.
        request: the buffer before the call, `optlen` bytes or more.
        table: learned flows, oldest first, in the form of a sockopt vector; a row may also have
            `dialect` (default `ipo`) and `age` in milliseconds (default 0).
        v6_to_v4_prefix: the /96 of the NAT64 reply conversion (2.5), None when it is off.

    Returns:
        The `expect` object of a sockopt vector.

    Raises:
        ValueError: the buffer is shorter than `optlen`, or an address or prefix is none.
    """
    if len(request) < optlen:
        raise ValueError(f"the request has {len(request)} bytes, optlen says {optlen}")
    try:
        reply = dispatch(level, optname, optlen, request, read_table(table), v6_to_v4_prefix)
    except FailedError as failed:
        return {"ret": -1, "errno": failed.errno}
    return {"ret": 0, "optlen": len(reply), "reply": reply.hex()}


def dispatch(
    level: int,
    optname: int,
    optlen: int,
    request: bytes,
    flows: list[Flow],
    v6_to_v4_prefix: str | None,
) -> bytes:
    """2.6, the dispatch."""
    if level != IPPROTO_IP:
        raise FailedError("ENOPROTOOPT")
    if optname == 2048:
        if optlen >= 58:
            return answer_2048_58(request[:58], flows)
        if optlen == 18:
            return answer_2048_18(request[:18], flows)
        raise FailedError("EINVAL")
    if optname == 2049:
        if optlen >= 40:
            return answer_2049(request[:40], flows, v6_to_v4_prefix)
        raise FailedError("EINVAL")
    if optname == 2050:
        if optlen >= 44:
            return answer_2050(request[:44], flows, v6_to_v4_prefix)
        raise FailedError("EINVAL")
    if optname == 2051:
        if optlen >= 88:
            return answer_2051(request[:88], flows)
        raise FailedError("EINVAL")
    raise FailedError("ENOPROTOOPT")


# ---------------------------------------------------------------------------------------------
# The table
# ---------------------------------------------------------------------------------------------


def read_table(table: Sequence[Mapping[str, Any]]) -> list[Flow]:
    """Return the live flows, oldest first; a row replaces an earlier one with the same key."""
    live: dict[tuple[bytes, int, bytes, int], Flow] = {}
    for row in table:
        flow = Flow(
            peer=address16(row["src"]),
            peer_port=row["sport"],
            local=address16(row["dst"]),
            local_port=row["dport"],
            client=address16(row["real_addr"]),
            client_port=row["real_port"],
            vip=address16(row["vip_addr"]) if "vip_addr" in row else ANY,
            vip_port=row.get("vip_port", 0),
            vni=row.get("vni", 0),
            dialect=row.get("dialect", "ipo"),
            age=row.get("age", 0),
        )
        key = flow[:4]
        live.pop(key, None)  # So that the replacement is also the newest.
        live[key] = flow
    return list(live.values())


def address16(text: str) -> bytes:
    """Return 16 bytes, IPv4 as mapped."""
    packed = ipaddress.ip_address(text).packed
    return MAPPED + packed if len(packed) == 4 else packed


def is_ipv4(address: bytes) -> bool:
    """Tell whether 16 bytes stand for an IPv4 address."""
    return address[:12] == MAPPED


def is_wildcard(local: bytes) -> bool:
    """2.6 and 2.7: `::` and `::ffff:0.0.0.0` are the wildcard, whatever the peer's family."""
    return local in (ANY, MAPPED_ANY)


def matches(
    flows: list[Flow], peer: bytes, peer_port: int, local: bytes, local_port: int
) -> list[Flow]:
    """Return the flows that a key names, oldest first."""
    return [
        flow
        for flow in flows
        if flow.peer == peer
        and flow.peer_port == peer_port
        and flow.local_port == local_port
        and (flow.local == local or is_wildcard(local))
    ]


def newest(flows: list[Flow], peer: bytes, peer_port: int, local: bytes, local_port: int) -> Flow:
    """2.6: "wildcard with several matches: the most recently updated entry"; "miss: ENOENT"."""
    found = matches(flows, peer, peer_port, local, local_port)
    if not found:
        raise FailedError("ENOENT")
    return found[-1]


# ---------------------------------------------------------------------------------------------
# The layouts
# ---------------------------------------------------------------------------------------------


def answer_2048_58(request: bytes, flows: list[Flow]) -> bytes:
    """2.1: the layout of HW and DPVS; the request comes back in front of the answer."""
    (family,) = struct.unpack_from("<H", request, 0)
    peer_port, local_port = struct.unpack_from(">HH", request, 34)
    peer, local = request[2:18], request[18:34]
    if family == AF_INET:
        peer, local = MAPPED + peer[:4], MAPPED + local[:4]
    elif family != AF_INET6:
        raise FailedError("ENOENT")
    flow = newest(flows, peer, peer_port, local, local_port)
    if is_ipv4(flow.client):
        real_family, real = AF_INET, flow.client[12:] + bytes(12)
    else:
        real_family, real = AF_INET6, flow.client
    return (
        request[:38] + struct.pack("<H", real_family) + real + struct.pack(">H", flow.client_port)
    )


def answer_2048_18(request: bytes, flows: list[Flow]) -> bytes:
    """2.2: the layout of BD v0, IPv4 only."""
    peer, local = MAPPED + request[0:4], MAPPED + request[4:8]
    peer_port, local_port = struct.unpack_from(">HH", request, 8)
    flow = newest(flows, peer, peer_port, local, local_port)
    if not is_ipv4(flow.client):
        raise FailedError("EAFNOSUPPORT")
    return request[:12] + flow.client[12:] + struct.pack(">H", flow.client_port)


def answer_2049(request: bytes, flows: list[Flow], v6_to_v4_prefix: str | None) -> bytes:
    """2.3: the layout of BD v1, a union; ports in network order."""
    (kind,) = struct.unpack_from("<I", request, 0)
    peer_port, local_port = struct.unpack_from(">HH", request, 4)
    peer, local = union_in(kind, request[8:40])
    flow = newest(flows, peer, peer_port, local, local_port)
    kind, addresses = union_out(flow, v6_to_v4_prefix)
    return struct.pack("<I", kind) + struct.pack(">HH", flow.client_port, flow.vip_port) + addresses


def answer_2050(request: bytes, flows: list[Flow], v6_to_v4_prefix: str | None) -> bytes:
    """2.4: the layout of BD v2, a union with the VNI; ports in host order."""
    (kind,) = struct.unpack_from("<I", request, 0)
    peer_port, local_port = struct.unpack_from("<HH", request, 8)
    peer, local = union_in(kind, request[12:44])
    flow = newest(flows, peer, peer_port, local, local_port)
    kind, addresses = union_out(flow, v6_to_v4_prefix)
    return struct.pack("<IIHH", kind, flow.vni, flow.client_port, flow.vip_port) + addresses


def union_in(kind: int, addresses: bytes) -> tuple[bytes, bytes]:
    """2.3: read source and destination from the 32 bytes of the union."""
    if kind == 0:
        return MAPPED + addresses[0:4], MAPPED + addresses[4:8]
    if kind == 1:
        return addresses[0:16], addresses[16:32]
    raise FailedError("ENOENT")


def union_out(flow: Flow, v6_to_v4_prefix: str | None) -> tuple[int, bytes]:
    """2.3 and 2.5: return the type and the 32 bytes of the union, unused bytes zero.

    The type follows the client; a VIP of the other family does not fit, so it is left zero.
    """
    if is_nat64(flow, v6_to_v4_prefix):
        return 0, flow.client[12:] + flow.vip[12:] + bytes(24)
    if is_ipv4(flow.client):
        vip = flow.vip[12:] if is_ipv4(flow.vip) else bytes(4)
        return 0, flow.client[12:] + vip + bytes(24)
    vip = bytes(16) if is_ipv4(flow.vip) else flow.vip
    return 1, flow.client + vip


def is_nat64(flow: Flow, v6_to_v4_prefix: str | None) -> bool:
    """2.5: tell whether the reply is to be converted; all 96 bits of the prefix count."""
    if v6_to_v4_prefix is None:
        return False
    network = ipaddress.IPv6Network(v6_to_v4_prefix)
    if network.prefixlen != 96:
        raise ValueError(f"the NAT64 prefix must be a /96: {v6_to_v4_prefix}")
    prefix = network.network_address.packed[:12]
    return (
        flow.client_port != 0
        and flow.vip_port != 0
        and flow.client[:12] == prefix
        and flow.vip[:12] == prefix
    )


def answer_2051(request: bytes, flows: list[Flow]) -> bytes:
    """2.7: our own layout, which tells all and says when it cannot tell."""
    (version,) = struct.unpack_from("<H", request, 0)
    if version != 1:
        raise FailedError("EINVAL")
    peer, local = request[8:24], request[24:40]
    peer_port, local_port = struct.unpack_from(">HH", request, 40)
    found = matches(flows, peer, peer_port, local, local_port)
    if not found:
        raise FailedError("ENOENT")
    clients = {(flow.client, flow.client_port) for flow in found}
    if len(clients) > 1:  # Only a wildcard can find several flows.
        raise FailedError("ENOTUNIQ")
    flow = found[-1]
    return b"".join(
        (
            struct.pack("<H", version),
            struct.pack("<H", FLAG_WILDCARD if is_wildcard(local) else 0),
            struct.pack("<I", flow.vni),
            peer,
            local,
            struct.pack(">HH", peer_port, local_port),
            struct.pack("B", DIALECT_NUMBERS[flow.dialect]),
            bytes(1),
            struct.pack(">H", flow.client_port),
            flow.client,
            flow.vip,
            struct.pack(">H", flow.vip_port),
            bytes(2),
            struct.pack("<I", min(flow.age, AGE_MAX)),
        )
    )
