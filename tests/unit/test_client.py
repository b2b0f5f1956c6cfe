# SPDX-License-Identifier: MIT
"""What applications see: `Client` and `Addr`."""

from __future__ import annotations

import copy
import dataclasses
import ipaddress
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import uoa
from tests.senders import Address, received_claim
from uoa import _client
from uoa._address import to_native
from uoa._client import View, addr_from, client_of, native_client
from uoa._native import ffi

PEER = ("10.0.0.5", 4000)
LOCAL = ("10.0.1.9", 53)
CLIENT = ("203.0.113.7", 5000)
TRUST = "10.0.0.0/24,fd00::/8,fe80::/10"


def resolve(
    peer: tuple[Any, ...] = PEER,
    client: Address | None = CLIENT,
    *,
    local: tuple[Any, ...] | None = LOCAL,
    trust: str = TRUST,
) -> uoa.Client:
    """Return what a fresh resolver makes of one datagram that names `client`, or nobody."""
    ancdata = [] if client is None else [received_claim(client, peer)]
    return uoa.Resolver(trust).resolve(peer, b"", ancdata, local=local)[0]


def address(
    view: View = "client",
    peer: tuple[Any, ...] = PEER,
    client: Address = CLIENT,
    *,
    is_ipv6_socket: bool = False,
) -> uoa.Addr:
    """Return the address object that an endpoint hands to its protocol."""
    native = ffi.new("struct uoa_client *", {"source": _client.SOURCES.index("cmsg")})
    to_native(peer, native.peer)
    to_native(client, native.client)
    return addr_from(client_of(native), view, is_ipv6_socket)


class TestClient:
    """The three outcomes, and the facts that come with them."""

    def test_a_claim_of_a_trusted_peer_is_resolved(self) -> None:
        """A client that a trusted peer named is resolved, and replies still go to the peer."""
        client = resolve()

        assert (client.host, client.port) == CLIENT
        assert client.peer == PEER
        assert client.local == LOCAL
        assert (client.resolved, client.direct) == (True, False)
        assert (client.source, client.dialect) == ("cmsg", "ipo")

    def test_a_sender_outside_trust_is_direct(self) -> None:
        """A peer that is no balancer is the client itself, whatever it claims."""
        client = resolve(trust="10.9.9.9")

        assert (client.host, client.port) == client.peer == PEER
        assert (client.resolved, client.direct) == (False, True)
        assert (client.source, client.dialect) == ("direct", None)

    def test_a_trusted_peer_without_a_claim_is_unknown(self) -> None:
        """A balancer that names nobody leaves the client unknown: neither resolved nor direct."""
        client = resolve(client=None)

        assert (client.host, client.port) == client.peer == PEER
        assert (client.resolved, client.direct) == (False, False)
        assert (client.source, client.dialect) == ("none", None)

    @pytest.mark.parametrize(
        ("client", "expected"),
        [
            (("203.0.113.7", 1), ipaddress.IPv4Address("203.0.113.7")),
            (("2001:db8::7", 1), ipaddress.IPv6Address("2001:db8::7")),
            (("::ffff:203.0.113.7", 1), ipaddress.IPv4Address("203.0.113.7")),
        ],
    )
    def test_ip_is_an_address_object_and_never_mapped(
        self, client: Address, expected: ipaddress.IPv4Address | ipaddress.IPv6Address
    ) -> None:
        """`ip` and `host` name an IPv4 client as IPv4, however the balancer wrote it."""
        for peer in (PEER, ("fd00::5", 4000)):
            found = resolve(peer, client)

            assert found.ip == expected
            assert found.host == str(expected)

    def test_a_mapped_peer_is_ipv4(self) -> None:
        """What a dual-stack socket calls ::ffff:10.0.0.5 is the peer 10.0.0.5."""
        client = resolve(("::ffff:10.0.0.5", 4000, 0, 0), local=("::ffff:10.0.1.9", 53, 0, 0))

        assert client.peer == PEER
        assert client.local == LOCAL
        assert client.resolved

    def test_age_counts_from_when_the_claim_was_learned(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`age` grows with the clock for a flow's client, and is None without a claim."""
        client = dataclasses.replace(resolve(), learned=100.0)
        monkeypatch.setattr(_client, "time", SimpleNamespace(monotonic=lambda: 130.5))

        assert client.age == 30.5
        assert dataclasses.replace(client, learned=None).age == 0.0
        assert resolve(client=None).age is None
        assert resolve(trust="10.9.9.9").age is None

    def test_link_local_peers_keep_their_interface(self) -> None:
        """A link-local peer is told apart by its interface, and is trusted by its address."""
        client = resolve(("fe80::5", 4000, 0, 2), ("2001:db8::7", 1), local=("fe80::9", 53, 0, 2))

        assert client.peer == ("fe80::5%2", 4000)
        assert client.local == ("fe80::9%2", 53)
        assert client.resolved

    def test_link_local_clients_have_no_interface(self) -> None:
        """A link-local address in a claim names no interface of ours."""
        assert resolve(("fe80::5", 4000, 0, 2), ("fe80::7", 1)).host == "fe80::7"

    def test_the_unspecified_address_can_be_a_peer(self) -> None:
        """A datagram from :: is nobody's mistake but its sender's: it has an outcome too."""
        assert resolve(("::", 4000, 0, 0), None).peer == ("::", 4000)

    @pytest.mark.parametrize("vni", [0, 7, 2**32 - 1])
    def test_the_virtual_network_is_told(self, vni: int) -> None:
        """The client of a bd29 option has its VNI, 0 included; others have none."""
        option = uoa.wire.build("bd29", CLIENT, vni=vni)
        resolver = uoa.Resolver(TRUST, dialects="ipo,bd")
        client, _ = resolver.resolve(PEER, b"", [(0, 6, option)])

        assert (client.dialect, client.vni, client.vip) == ("bd29", vni, None)
        assert resolve().vni is None

    def test_the_address_the_client_sent_to_is_told(self) -> None:
        """`vip` is what the client sent to, of the dialects that carry it."""
        vip = ("198.51.100.80", 443)
        option = uoa.wire.build("bd30", CLIENT, vip=vip)
        client, _ = uoa.Resolver(TRUST, dialects="bd").resolve(PEER, b"", [(0, 6, option)])

        assert client.vip == vip
        assert resolve().vip is None

    def test_a_client_cannot_be_changed(self) -> None:
        """A client is a value: comparable, hashable and read-only."""
        one, other = (dataclasses.replace(resolve(), learned=1.0) for _ in range(2))

        assert one == other
        assert hash(one) == hash(other)
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.host = "198.51.100.1"  # type: ignore[misc]


COPIES: list[Callable[[uoa.Addr], Any]] = [
    copy.copy,
    copy.deepcopy,
    *(
        lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
]


class TestAddr:
    """A tuple for frameworks, with both sides for us."""

    def test_the_client_view_is_two_items(self) -> None:
        """In the client view an address reads as (host, port) of the client, IPv6 too."""
        assert address() == CLIENT
        assert address(client=("2001:db8::7", 1), is_ipv6_socket=True) == ("2001:db8::7", 1)
        assert address(peer=("::ffff:10.0.0.5", 1), is_ipv6_socket=True) == CLIENT

    @pytest.mark.parametrize(
        ("peer", "is_ipv6_socket", "expected"),
        [
            (PEER, False, PEER),
            (PEER, True, ("::ffff:10.0.0.5", 4000, 0, 0)),
            (("fd00::5", 4000), True, ("fd00::5", 4000, 0, 0)),
            (("fe80::5%3", 4000), True, ("fe80::5", 4000, 0, 3)),
        ],
    )
    def test_the_peer_view_is_what_the_socket_saw(
        self, peer: Address, is_ipv6_socket: bool, expected: tuple[Any, ...]
    ) -> None:
        """In the peer view an address is what recvfrom() would have returned."""
        assert address("peer", peer, is_ipv6_socket=is_ipv6_socket) == expected

    @pytest.mark.parametrize("view", ["client", "peer"])
    def test_both_views_know_both_sides(self, view: View) -> None:
        """`client` and `peer` are the same in both views."""
        addr = address(view)

        assert (addr.client.host, addr.client.port) == CLIENT
        assert addr.peer == addr.client.peer == PEER

    def test_equality_and_hash_are_those_of_the_tuple(self) -> None:
        """An address is equal to the tuple it reads as, and finds it in a dictionary."""
        addr = address()

        assert addr == CLIENT
        assert hash(addr) == hash(CLIENT)
        assert addr in {CLIENT}
        assert addr == address(peer=("10.0.0.6", 1))
        assert addr != address("peer")

    @pytest.mark.parametrize("duplicate", COPIES)
    def test_copies_keep_both_sides(self, duplicate: Callable[[uoa.Addr], Any]) -> None:
        """A copy, a deep copy and a pickle are addresses that still route to the peer."""
        original = address("peer", ("fe80::5%3", 4000), is_ipv6_socket=True)
        assert original.native  # what belongs to this process must not be in the way
        twin = duplicate(original)

        assert type(twin) is uoa.Addr
        assert twin == original
        assert twin.client == original.client
        assert bytes(ffi.buffer(twin.native)) == bytes(ffi.buffer(original.native))

    @pytest.mark.parametrize("dialect", [None, "ipo", "bd29", "ppv2", "spp"])
    def test_c_and_python_know_the_same_client(self, dialect: str | None) -> None:
        """What C makes of a client and back is the client, in each dialect, with each address."""
        client = uoa.Client(
            "2001:db8::7", 5000, ("fe80::5%3", 4000), ("fe80::9%3", 53), "proxy", dialect,
            ("198.51.100.80", 443), 4711 if dialect == "bd29" else None,
        )  # fmt: skip

        assert client_of(native_client(client)) == client
        bare = dataclasses.replace(client, local=None, vip=None)
        assert client_of(native_client(bare)) == bare
