# SPDX-License-Identifier: MIT
"""Where replies go: through the peer that a client came from, and nowhere else.

The table of clients and peers is asked with Resolver.route(); what comes out is
also what endpoints and sockets do. The clock is a variable.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any, Final

import pytest

import uoa
from tests.clock import Clock
from tests.senders import Address, received_claim, received_option
from uoa._client import addr_from

OLD: Final = ("10.0.0.5", 4000)
NEW: Final = ("10.0.0.5", 4001)
OTHER: Final = ("10.0.0.6", 4000)
STRANGER: Final = ("192.0.2.66", 4000)
LOCAL: Final = ("10.0.1.9", 53)
ALICE: Final = ("203.0.113.7", 5000)
BOB: Final = ("203.0.113.8", 5000)
TRUST: Final = "10.0.0.0/24,fd00::/64,fe80::/10"


@pytest.fixture
def resolver() -> uoa.Resolver:
    """Give a test a resolver that reads PROXY headers: each datagram can name its client."""
    return uoa.Resolver(TRUST, dialects="ppv2")


def heard(
    resolver: uoa.Resolver,
    peer: tuple[Any, ...],
    client: Address | None = None,
    local: Address = LOCAL,
) -> uoa.Addr:
    """Resolve a datagram; return the address that its handler gets."""
    header = uoa.wire.build("ppv2", client) if client else b""
    return addr_from(resolver.resolve(peer, header + b"data", local=local)[0], "client", False)


def way(resolver: uoa.Resolver, address: Any, local: Address = LOCAL) -> tuple[str, int]:
    """Return the peer that a reply goes to."""
    return resolver.route(address, local).peer


class TestOneBalancer:
    """A client that came through one peer."""

    def test_a_reply_goes_to_the_peer(self, resolver: uoa.Resolver) -> None:
        """The address of a datagram leads back through the balancer, from where it came to."""
        addr = heard(resolver, OLD, ALICE)

        assert tuple(addr) == ALICE
        assert resolver.route(addr, LOCAL) == uoa.Route(OLD, LOCAL, b"")
        assert resolver.route(addr.client) == uoa.Route(OLD, LOCAL, b"")

    @pytest.mark.parametrize(
        "rebuild",
        [tuple, lambda a: tuple(a)[:2], lambda a: (a[0], a[1], 0, 0)],
        ids=["tuple", "sliced", "four items"],
    )
    def test_a_plain_tuple_goes_there_too(self, resolver: uoa.Resolver, rebuild: Any) -> None:
        """An address that a framework has rebuilt finds its way by the table."""
        addr = heard(resolver, OLD, ALICE)

        assert resolver.route(rebuild(addr), LOCAL) == uoa.Route(OLD, LOCAL, b"")

    @pytest.mark.parametrize(
        "twin", [copy.copy, copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))]
    )
    def test_a_copy_goes_there_too(self, resolver: uoa.Resolver, twin: Any) -> None:
        """A copy, a deep copy and a pickle lead to the peer, also without the table."""
        addr = twin(heard(resolver, OLD, ALICE))

        assert way(resolver, addr) == OLD
        assert resolver.route(addr, LOCAL, table=False).peer == OLD

    def test_the_table_is_of_one_local_port(self, resolver: uoa.Resolver) -> None:
        """What came to port 53 says nothing of replies from port 54."""
        heard(resolver, OLD, ALICE)

        assert way(resolver, ALICE, ("10.0.1.9", 54)) == ALICE
        assert way(resolver, ALICE, ("10.0.1.10", 53)) == OLD

    def test_the_port_is_part_of_the_client(self, resolver: uoa.Resolver) -> None:
        """Another port of a client's host is another client."""
        heard(resolver, OLD, ALICE)

        assert way(resolver, (ALICE[0], 5001)) == (ALICE[0], 5001)

    def test_the_way_is_forgotten_after_ttl(self, clock: Clock) -> None:
        """A client that is silent for longer than ttl is no more in the table."""
        resolver = uoa.Resolver(TRUST, dialects="ppv2", ttl=60)
        addr = heard(resolver, OLD, ALICE)
        clock.now += 60
        assert way(resolver, ALICE) == OLD
        clock.now += 1

        assert way(resolver, ALICE) == ALICE
        assert way(resolver, addr) == OLD

    def test_a_peer_that_has_left_trust_is_not_used(self, resolver: uoa.Resolver) -> None:
        """The table routes to trusted peers only, as trust is now."""
        heard(resolver, OLD, ALICE)
        resolver.set_trust("10.0.0.6")

        assert way(resolver, ALICE) == ALICE

    def test_the_least_recently_heard_client_leaves_first(self) -> None:
        """The table has a ceiling, and a client that is heard from stays."""
        resolver = uoa.Resolver(TRUST, dialects="ppv2", max_flows=100)
        heard(resolver, OLD, BOB)
        for number in range(1000):
            heard(resolver, NEW, ALICE)
            heard(resolver, ("10.0.0.7", 4000), ("198.51.100.1", 1 + number))

        assert way(resolver, ALICE) == NEW
        assert way(resolver, BOB) == BOB

    def test_link_local_clients_are_of_one_interface(self, resolver: uoa.Resolver) -> None:
        """A claim has no interface: it leads no link-local sender's replies away."""
        heard(resolver, OLD, ("fe80::7", 5000))

        assert way(resolver, ("fe80::7", 5000)) == OLD
        assert way(resolver, ("fe80::7", 5000, 0, 2)) == ("fe80::7%2", 5000)


class TestMovedFlow:
    """The balancer gives a client another port."""

    def test_replies_follow(self, resolver: uoa.Resolver, clock: Clock) -> None:
        """The address of an earlier datagram leads to the newer port, as a plain tuple does."""
        stale = heard(resolver, OLD, ALICE)
        clock.now += 1
        fresh = heard(resolver, NEW, ALICE)

        assert way(resolver, stale) == way(resolver, fresh) == way(resolver, ALICE) == NEW

    def test_without_the_table_they_do_not(self, resolver: uoa.Resolver, clock: Clock) -> None:
        """A user of the peer view sees the peers, and answers the one it chose."""
        stale = heard(resolver, OLD, ALICE)
        clock.now += 1
        heard(resolver, NEW, ALICE)

        assert resolver.route(stale, LOCAL, table=False).peer == OLD
        assert resolver.route(ALICE, LOCAL, table=False).peer == ALICE

    def test_many_moves(self, resolver: uoa.Resolver, clock: Clock) -> None:
        """After any number of moves the newest port is the way."""
        first = heard(resolver, ("10.0.0.5", 4000), ALICE)
        for port in range(4001, 4100):
            clock.now += 1
            heard(resolver, ("10.0.0.5", port), ALICE)

            assert way(resolver, first) == way(resolver, ALICE) == ("10.0.0.5", port)


class TestTwoBalancers:
    """A client that comes through two balancers at once."""

    def test_each_reply_leaves_through_the_right_one(
        self, resolver: uoa.Resolver, clock: Clock
    ) -> None:
        """While both are heard from, each datagram's address leads to its own peer."""
        heard(resolver, OLD, ALICE)
        clock.now += 1
        heard(resolver, OTHER, ALICE)
        for _ in range(10):
            addrs = {}
            for peer in (OLD, OTHER):
                clock.now += 1
                addrs[peer] = heard(resolver, peer, ALICE)
                assert way(resolver, ALICE) == peer

            for peer, addr in addrs.items():
                assert way(resolver, addr) == peer

    def test_datagrams_of_one_batch_are_of_one_time(
        self, resolver: uoa.Resolver, clock: Clock
    ) -> None:
        """Two first datagrams that were received together are no move from one to the other."""
        addrs = [heard(resolver, peer, ALICE) for peer in (OLD, OTHER)]

        assert [way(resolver, addr) for addr in addrs] == [OLD, OTHER]
        assert way(resolver, ALICE) == OTHER

    def test_virtual_networks_are_apart(self, clock: Clock) -> None:
        """The same private address in another network is another client, with its own way."""
        resolver = uoa.Resolver(TRUST, dialects="bd")
        addrs = []
        for vni, peer in ((1, OLD), (2, OTHER)):
            clock.now += 1
            option = uoa.wire.build("bd29", ALICE, vni=vni)
            client, _ = resolver.resolve(peer, b"", [received_option(option, peer)], local=LOCAL)
            addrs.append(addr_from(client, "client", False))

        assert [way(resolver, addr) for addr in addrs] == [OLD, OTHER]
        assert [way(resolver, copy.deepcopy(addr)) for addr in addrs] == [OLD, OTHER]

    def test_more_than_the_table_tells_apart(self, resolver: uoa.Resolver, clock: Clock) -> None:
        """Of many balancers some may get another's reply, and nobody else does."""
        peers = [("10.0.0.5", 4000 + number) for number in range(20)]
        addrs = []
        for peer in peers:
            clock.now += 1
            addrs.append(heard(resolver, peer, ALICE))

        assert {way(resolver, addr) for addr in addrs} <= set(peers)
        assert way(resolver, ALICE) == peers[-1]


class TestSteering:
    """Nobody leads another's replies away."""

    def test_a_direct_client_is_answered_directly(
        self, resolver: uoa.Resolver, clock: Clock
    ) -> None:
        """A claim to be a direct client leaves the replies to that one where they were."""
        direct = heard(resolver, STRANGER)
        clock.now += 1
        forged = heard(resolver, OLD, STRANGER)

        assert direct.client.direct
        assert way(resolver, direct) == STRANGER
        assert way(resolver, forged) == OLD

    def test_a_direct_datagram_takes_the_claim_back(
        self, resolver: uoa.Resolver, clock: Clock
    ) -> None:
        """After a direct datagram not even a plain tuple leads to who claimed to be its sender."""
        heard(resolver, OLD, STRANGER)
        clock.now += 1
        heard(resolver, STRANGER)

        assert way(resolver, STRANGER) == STRANGER

    def test_on_that_port_only(self, resolver: uoa.Resolver) -> None:
        """A direct datagram to one port leaves the flows of another."""
        heard(resolver, OLD, STRANGER)
        heard(resolver, STRANGER, local=("10.0.1.9", 54))

        assert way(resolver, STRANGER) == OLD

    def test_an_untrusted_claim_leads_nowhere(self, resolver: uoa.Resolver) -> None:
        """A claim from outside of trust enters no table."""
        heard(resolver, STRANGER, ALICE)

        assert way(resolver, ALICE) == ALICE

    def test_an_unknown_client_is_answered_at_its_peer(
        self, resolver: uoa.Resolver, clock: Clock
    ) -> None:
        """A balancer's datagram without a claim is answered there, whoever claims to be it."""
        unknown = heard(resolver, OLD)
        clock.now += 1
        heard(resolver, OTHER, OLD)

        assert unknown.client.source == "none"
        assert way(resolver, unknown) == OLD

    def test_local_is_answered(self, resolver: uoa.Resolver) -> None:
        """A balancer that speaks for itself gets its answer, and leaves no way to anybody."""
        client, _ = resolver.resolve(OLD, uoa.wire.build_local(), local=LOCAL)

        assert client.direct
        assert way(resolver, client) == OLD
        assert way(resolver, OLD) == OLD

    def test_a_claim_that_cannot_be_used_leads_nowhere(self, resolver: uoa.Resolver) -> None:
        """A header that breaks a rule enters no table."""
        header = uoa.wire.build("ppv2", ALICE)
        resolver.resolve(OLD, header[:20], local=LOCAL)
        resolver.resolve(OLD, uoa.wire.build("ppv2", (ALICE[0], 0)), local=LOCAL)

        assert way(resolver, ALICE) == ALICE

    def test_a_pinned_flow_is_not_led_away(self, clock: Clock) -> None:
        """Under "pin" a forged claim of a flow names nobody, and steers nobody's replies."""
        resolver = uoa.Resolver(TRUST, policy="pin")
        resolver.resolve(OLD, b"", [received_claim(ALICE, OLD)], local=LOCAL)
        clock.now += 1
        resolver.resolve(NEW, b"", [received_claim(BOB, NEW)], local=LOCAL)
        clock.now += 1
        resolver.resolve(NEW, b"", [received_claim(ALICE, NEW)], local=LOCAL)

        assert way(resolver, ALICE) == OLD
        assert way(resolver, BOB) == NEW


class TestSpp:
    """SPP wants its header on replies."""

    @pytest.mark.parametrize("client", [ALICE, ("2001:db8::7", 5000)])
    def test_a_reply_begins_with_the_header_of_the_flow(self, client: Address) -> None:
        """The header is the one that the client's datagram had, by address and by table."""
        resolver = uoa.Resolver(TRUST, dialects="spp")
        header = uoa.wire.build("spp", client, vip=("198.51.100.80", 443))
        found, payload = resolver.resolve(OLD, header + b"data", local=LOCAL)

        assert payload == b"data"
        assert resolver.route(found) == uoa.Route(OLD, LOCAL, header)
        assert resolver.route(client, LOCAL) == uoa.Route(OLD, LOCAL, header)
        assert resolver.route(found, table=False) == uoa.Route(OLD, LOCAL, header)

    def test_a_direct_client_gets_none(self) -> None:
        """Who is not behind a balancer gets the payload alone."""
        resolver = uoa.Resolver(TRUST, dialects="spp,ppv2")
        direct, _ = resolver.resolve(STRANGER, b"data", local=LOCAL)
        other, _ = resolver.resolve(OLD, uoa.wire.build("ppv2", ALICE), local=LOCAL)

        assert resolver.route(direct).header == b""
        assert resolver.route(other).header == b""


def test_port_0_is_no_way_back() -> None:
    """A trusted datagram from port 0 names a client, and takes nobody's replies with it."""
    resolver = uoa.Resolver(["10.0.0.0/24"], dialects="ppv2")
    client, local, peer = ("203.0.113.7", 5555), ("10.0.1.9", 53), ("10.0.0.5", 40001)
    header = uoa.wire.build("ppv2", client)
    kept, _ = resolver.resolve(peer, header, local=local)
    moved, _ = resolver.resolve((peer[0], 0), header, local=local)

    assert moved.host == client[0]
    assert resolver.route(client, local).peer == peer
    assert resolver.route(kept, local).peer == peer
