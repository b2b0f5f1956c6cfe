# SPDX-License-Identifier: MIT
"""Who is who in the scenarios, in both families, and the ways for a client's address to travel.

clients ── balancers ──┐
                       ├── server      all of them on the loopback interface
stranger ──────────────┘
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Hosts(NamedTuple):
    """The addresses of one family, who is who on the drawing."""

    clients: tuple[str, str]
    balancers: tuple[str, str]
    server: str
    stranger: str
    trust: str


HOSTS: Final = {
    4: Hosts(
        ("203.0.113.7", "203.0.113.8"), ("10.0.0.5", "10.0.0.6"), "10.0.1.9", "10.0.2.1",
        "10.0.0.0/24",
    ),
    6: Hosts(
        ("2001:db8:c::7", "2001:db8:c::8"), ("fd00:0:0:1::5", "fd00:0:0:1::6"), "fd00:0:0:2::9",
        "fd00:0:0:3::1", "fd00:0:0:1::/64",
    ),
}  # fmt: skip
ADDRESSES: Final = [
    host for hosts in HOSTS.values() for host in (*hosts.balancers, hosts.server, hosts.stranger)
]

# Families of the client and of the packets that the server gets.
PAIRS: Final = {"4to4": (4, 4), "6to6": (6, 6), "nat46": (4, 6), "nat64": (6, 4)}


class Backend(NamedTuple):
    """A way for the client's address to travel."""

    source: str
    dialect: str
    remembers: bool
    """Whether a flow's later datagrams may go without a claim."""
    once: bool = False


BACKENDS: Final = {
    "cmsg": Backend("cmsg", "ipo", remembers=True),
    "proxy": Backend("proxy", "ppv2", remembers=False),
    "once": Backend("proxy", "ppv2", remembers=True, once=True),
    "spp": Backend("proxy", "spp", remembers=False),
    "sockopt": Backend("sockopt", "ipo", remembers=True),
}
