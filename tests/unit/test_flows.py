# SPDX-License-Identifier: MIT
"""The table of flows: which client stays known, for how long, and who leaves first.

The clock is a variable here; nothing sleeps.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any, Final, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import uoa
from tests.clock import Clock
from tests.senders import Address, option_of, received_claim, received_option
from uoa import wire

PEER: Final = ("10.0.0.5", 4000)
PEER6: Final = ("fd00::5", 4000)
LOCAL: Final = ("10.0.1.9", 53)
OTHER_LOCAL: Final = ("10.0.1.10", 53)
ALICE: Final = ("203.0.113.7", 5000)
BOB: Final = ("203.0.113.8", 5000)
CAROL: Final = ("2001:db8::9", 5000)
TRUST: Final = "10.0.0.0/24,fd00::/64"

Policy = Literal["replace", "pin"]


def said(
    resolver: uoa.Resolver,
    claim: Address | None = None,
    peer: tuple[Any, ...] = PEER,
    local: Address | None = LOCAL,
) -> Address | None:
    """Resolve a datagram that names `claim`; return who it is from, None if that is unknown."""
    control = [] if claim is None else [received_claim(claim, peer)]
    client, _ = resolver.resolve(peer, b"data", control, local=local)
    return (client.host, client.port) if client.resolved else None


def known(
    resolver: uoa.Resolver, peer: Address = PEER, local: Address | None = None
) -> Address | None:
    """Return who the table has behind a peer."""
    client = resolver.lookup(peer, local)
    return None if client is None else (client.host, client.port)


class TestKnownFlow:
    """Balancers name the client in the first datagrams only."""

    @pytest.mark.parametrize("peer", [PEER, PEER6])
    @pytest.mark.parametrize("client", [ALICE, CAROL])
    def test_later_datagrams_are_from_the_client_of_the_first(
        self, clock: Clock, peer: Address, client: Address
    ) -> None:
        """A datagram without an option is from the client that its flow's option named."""
        resolver = uoa.Resolver(TRUST)
        said(resolver, client, peer)
        clock.now += 30
        found, _ = resolver.resolve(peer, b"", local=LOCAL)

        assert (found.host, found.port) == client
        assert (found.source, found.dialect, found.peer) == ("cmsg", "ipo", peer)
        assert (found.learned, found.age) == (1000.0, 30.0)

    @pytest.mark.parametrize(
        ("peer", "local"),
        [
            (("10.0.0.6", 4000), LOCAL),
            (("10.0.0.5", 4001), LOCAL),
            (PEER, OTHER_LOCAL),
            (PEER, ("10.0.1.9", 54)),
            (PEER6, LOCAL),
        ],
    )
    def test_another_flow_is_another_flow(self, peer: Address, local: Address) -> None:
        """One other address or port, on either end, is not the same flow."""
        resolver = uoa.Resolver(TRUST)
        said(resolver, ALICE)

        assert said(resolver, None, peer, local) is None
        assert said(resolver) == ALICE

    def test_interfaces_tell_link_local_balancers_apart(self) -> None:
        """The same link-local address on two interfaces is two balancers."""
        resolver = uoa.Resolver("fe80::/10")
        one, other = ("fe80::5", 4000, 0, 1), ("fe80::5", 4000, 0, 2)
        said(resolver, ALICE, one)
        said(resolver, BOB, other)

        assert said(resolver, None, one) == ALICE
        assert said(resolver, None, other) == BOB
        assert known(resolver, ("fe80::5%1", 4000)) == ALICE

    def test_a_mapped_peer_is_the_same_flow(self) -> None:
        """10.0.0.5 and ::ffff:10.0.0.5 are one balancer, whichever socket heard it."""
        resolver = uoa.Resolver(TRUST)
        said(resolver, ALICE)

        assert said(resolver, None, ("::ffff:10.0.0.5", 4000, 0, 0)) == ALICE

    def test_time_that_two_threads_read_in_turn_runs_backwards(self, clock: Clock) -> None:
        """A datagram whose time was read before another's finds the flow that the other used."""
        resolver = uoa.Resolver(TRUST, max_age=3600)
        said(resolver, ALICE)
        clock.now -= 0.001

        assert said(resolver) == ALICE
        assert resolver.stats()["expired"] == 0


class TestForgetting:
    """ttl and max_age, and the ceiling."""

    def test_an_idle_flow_is_forgotten_after_ttl(self, clock: Clock) -> None:
        """A flow without datagrams lives for ttl and not longer."""
        resolver = uoa.Resolver(TRUST, ttl=60)
        said(resolver, ALICE)
        clock.now += 60

        assert said(resolver) == ALICE
        clock.now += 60.001

        assert known(resolver) is None
        assert said(resolver) is None
        assert (resolver.stats()["expired"], resolver.stats()["flows"]) == (1, 0)

    def test_a_busy_flow_outlives_ttl(self, clock: Clock) -> None:
        """Three options and then only data: the client stays known, far past ttl."""
        resolver = uoa.Resolver(TRUST, ttl=60)
        for _ in range(3):
            said(resolver, ALICE)
        for _ in range(100):
            clock.now += 59
            assert said(resolver) == ALICE

        client = resolver.lookup(PEER, LOCAL)
        assert client is not None
        assert client.age == 100 * 59

    def test_looking_up_keeps_nothing_alive(self, clock: Clock) -> None:
        """A lookup is no datagram."""
        resolver = uoa.Resolver(TRUST, ttl=60)
        said(resolver, ALICE)
        clock.now += 40

        assert known(resolver, PEER, LOCAL) == ALICE
        clock.now += 40

        assert known(resolver, PEER, LOCAL) is None

    @pytest.mark.parametrize("option", [b"\x1f\x03\x00", b"\x1f\x08\x00\x00\xcb\x00\x71\x07"])
    def test_a_claim_that_cannot_be_used_keeps_no_flow_alive(
        self, clock: Clock, option: bytes
    ) -> None:
        """A malformed claim, or one of an impossible client, is no traffic of the flow."""
        resolver = uoa.Resolver(TRUST, ttl=60)
        said(resolver, ALICE)
        clock.now += 40
        damaged = [received_option(option, PEER)]

        assert resolver.resolve(PEER, b"", damaged, local=LOCAL)[0].host == ALICE[0]
        clock.now += 40

        assert said(resolver, None) is None

    def test_no_flow_outlives_max_age(self, clock: Clock) -> None:
        """max_age ends a flow even while it is busy; a new option starts it again."""
        resolver = uoa.Resolver(TRUST, ttl=60, max_age=100)
        said(resolver, ALICE)
        clock.now += 50

        assert said(resolver) == ALICE
        clock.now += 50

        assert said(resolver, ALICE) == ALICE
        clock.now += 0.001

        assert said(resolver) is None
        assert resolver.stats()["expired"] == 1
        assert said(resolver, ALICE) == ALICE
        clock.now += 50

        assert said(resolver) == ALICE

    def test_the_least_recently_used_leaves_first(self) -> None:
        """A full table makes room by its flow that was silent for longest, and counts it."""
        resolver = uoa.Resolver(TRUST, max_flows=3)
        peers = [("10.0.0.5", port) for port in range(1, 5)]
        for peer in peers[:3]:
            said(resolver, ALICE, peer)
        said(resolver, None, peers[0])
        said(resolver, BOB, peers[3])

        assert [known(resolver, peer) for peer in peers] == [ALICE, None, ALICE, BOB]
        assert (resolver.stats()["evicted"], resolver.stats()["flows"]) == (1, 3)

    def test_an_expired_flow_is_no_evicted_one(self, clock: Clock) -> None:
        """A flow that had its time leaves as expired, also when its place is needed."""
        resolver = uoa.Resolver(TRUST, max_flows=1, ttl=60)
        said(resolver, ALICE)
        clock.now += 61
        said(resolver, BOB, ("10.0.0.6", 1))

        assert (resolver.stats()["evicted"], resolver.stats()["expired"]) == (0, 1)

    def test_a_flood_of_flows_stays_below_the_ceiling(self) -> None:
        """However many flows come, max_flows stay, all of them right, and the rest is counted."""
        resolver = uoa.Resolver(TRUST, max_flows=100)
        for n in range(10_000):
            said(resolver, ("203.0.113.7", n + 1), ("10.0.0.5", n + 1))
        stats = resolver.stats()

        assert (stats["flows"], stats["learned"], stats["evicted"]) == (100, 10_000, 9_900)
        for n in range(9_900, 10_000):
            assert known(resolver, ("10.0.0.5", n + 1)) == ("203.0.113.7", n + 1)


class TestPolicy:
    """What a claim does that differs from the table's."""

    def test_replace_believes_the_newest(self, clock: Clock) -> None:
        """Under "replace" a forged fourth option takes the flow over, and is counted."""
        resolver = uoa.Resolver(TRUST)
        for _ in range(3):
            said(resolver, ALICE)
        clock.now += 1

        assert said(resolver, BOB) == BOB
        assert said(resolver) == BOB
        client = resolver.lookup(PEER)
        assert client is not None
        assert (client.learned, resolver.stats()["changed"]) == (1001.0, 1)

    def test_pin_keeps_the_first(self) -> None:
        """Under "pin" a forged fourth option changes nothing, and is counted."""
        resolver = uoa.Resolver(TRUST, policy="pin")
        for _ in range(3):
            said(resolver, ALICE)

        assert said(resolver, BOB) == ALICE
        assert said(resolver) == ALICE
        assert (resolver.stats()["changed"], resolver.stats()["learned"]) == (1, 1)

    def test_pin_ends_with_the_flow(self, clock: Clock) -> None:
        """A pinned flow that is idle for ttl makes room for another client."""
        resolver = uoa.Resolver(TRUST, policy="pin", ttl=60)
        said(resolver, ALICE)
        clock.now += 60.001

        assert said(resolver, BOB) == BOB
        assert resolver.stats()["changed"] == 0

    def test_a_claim_that_differs_keeps_no_pinned_flow_alive(self, clock: Clock) -> None:
        """A client that sends options of its own does not hold a pinned flow for ever."""
        resolver = uoa.Resolver(TRUST, policy="pin", ttl=60)
        said(resolver, ALICE)
        clock.now += 40

        assert said(resolver, BOB) == ALICE
        clock.now += 40

        assert said(resolver, BOB) == BOB

    def test_a_port_that_another_client_got_is_the_other_client(self) -> None:
        """When a balancer reuses a port the new client is known from its first option on."""
        resolver = uoa.Resolver(TRUST)
        said(resolver, ALICE)
        said(resolver)

        assert [said(resolver, BOB), said(resolver), said(resolver)] == [BOB] * 3
        assert resolver.stats()["flows"] == 1

    def test_the_same_client_on_another_port_is_another_client(self) -> None:
        """Port and address make a client: one of them is enough for a change."""
        resolver = uoa.Resolver(TRUST)
        said(resolver, ALICE)

        assert said(resolver, (ALICE[0], ALICE[1] + 1)) == (ALICE[0], ALICE[1] + 1)
        assert resolver.stats()["changed"] == 1

    def test_the_same_address_in_another_network_is_another_client(self) -> None:
        """Tenants have the same private addresses: of each the VNI is told, and counted."""
        resolver = uoa.Resolver(TRUST, dialects="bd")
        pinned = uoa.Resolver(TRUST, dialects="bd", policy="pin")
        for vni, first in ((1, 1), (2, 1), (2, 1)):
            control = [received_option(wire.build("bd29", ALICE, vni=vni), PEER)]
            assert resolver.resolve(PEER, b"", control, local=LOCAL)[0].vni == vni
            assert resolver.resolve(PEER, b"", local=LOCAL)[0].vni == vni
            assert pinned.resolve(PEER, b"", control, local=LOCAL)[0].vni == first

        assert (resolver.stats()["changed"], pinned.stats()["changed"]) == (1, 2)
        control = [received_option(wire.build("bd29", ALICE, vni=1), PEER)]
        resolver.resolve(PEER, b"", control, local=OTHER_LOCAL)
        assert resolver.lookup(PEER) is None

    def test_a_client_may_turn_to_another_address(self, clock: Clock) -> None:
        """The VIP is that of the newest claim, also where it is no other client's."""
        resolver = uoa.Resolver(TRUST, dialects="bd")
        for vip in (("198.51.100.80", 53), ("198.51.100.81", 53)):
            control = [received_option(wire.build("bd31", ALICE, vip=vip), PEER)]
            assert resolver.resolve(PEER, b"", control, local=LOCAL)[0].vip == vip
            assert resolver.resolve(PEER, b"", local=LOCAL)[0].vip == vip
            clock.now += 1

        client = resolver.lookup(PEER)
        assert client is not None
        assert client.age == 2
        assert resolver.stats()["changed"] == 0


class TestWhatNeverWrites:
    """Only trusted and well-formed claims write to the table."""

    @pytest.mark.parametrize("policy", ["replace", "pin"])
    @pytest.mark.parametrize(
        ("reason", "option"),
        [
            ("malformed", b"\x1f\x07" + bytes(6)),
            ("malformed", b"\x01\x01\x01\x1f"),
            ("invalid_addr", option_of(("127.0.0.1", 9), PEER)),
            ("invalid_addr", option_of((BOB[0], 0), PEER)),
            ("conflict", option_of(BOB, PEER) + option_of(ALICE, PEER)),
        ],
    )
    def test_a_claim_that_breaks_a_rule_changes_no_flow(
        self, policy: Policy, reason: str, option: bytes
    ) -> None:
        """Such a claim is counted; the flow's client stays, and no flow is made of it."""
        resolver = uoa.Resolver(TRUST, policy=policy)
        said(resolver, ALICE)
        for peer in (PEER, ("10.0.0.6", 1)):
            client, _ = resolver.resolve(peer, b"", [received_option(option, peer)], local=LOCAL)
            assert (client.host, client.port) in (ALICE, peer)
        stats = resolver.stats()

        assert (stats[reason], stats["changed"], stats["flows"]) == (2, 0, 1)
        assert (known(resolver), said(resolver)) == (ALICE, ALICE)

    def test_an_untrusted_sender_changes_no_flow(self) -> None:
        """A perfect option from a stranger who uses a balancer's port is not believed."""
        resolver = uoa.Resolver(TRUST)
        said(resolver, ALICE)
        stranger = ("10.0.9.9", PEER[1])

        assert said(resolver, BOB, stranger) is None
        assert resolver.stats()["untrusted"] == 1
        assert (known(resolver), resolver.stats()["flows"]) == (ALICE, 1)


class TestTrustChanges:
    """set_trust() and the flows that are there."""

    def test_flows_of_a_peer_that_is_trusted_no_more_are_not_used(self) -> None:
        """A balancer that left `trust` is a direct client, until it is trusted again."""
        resolver = uoa.Resolver(TRUST)
        said(resolver, ALICE)
        resolver.set_trust([])

        assert resolver.resolve(PEER, b"", local=LOCAL)[0].direct
        assert known(resolver) is None
        resolver.set_trust(TRUST)

        assert said(resolver) == ALICE


class TestLookup:
    """Who is behind a peer, asked without a datagram."""

    def test_one_local_address_need_not_be_named(self) -> None:
        """With one flow from that peer the local address does not matter."""
        resolver = uoa.Resolver(TRUST)
        said(resolver, ALICE)

        assert known(resolver) == known(resolver, PEER, LOCAL) == ALICE
        assert known(resolver, PEER, ("0.0.0.0", 53)) == ALICE
        assert known(resolver, PEER, ("::", 53)) == ALICE
        assert known(resolver, PEER, OTHER_LOCAL) is None
        assert known(resolver, PEER, ("0.0.0.0", 54)) is None

    def test_several_clients_need_the_local_address(self) -> None:
        """Where several clients match there is no answer, rather than a wrong one; counted."""
        resolver = uoa.Resolver(TRUST)
        said(resolver, ALICE, PEER, LOCAL)
        said(resolver, BOB, PEER, OTHER_LOCAL)

        assert known(resolver) is None
        assert known(resolver, PEER, LOCAL) == ALICE
        assert known(resolver, PEER, OTHER_LOCAL) == BOB
        assert resolver.stats()["ambiguous"] == 1

    def test_several_flows_of_one_client_are_one_answer(self) -> None:
        """Where all flows that match are one client's, the client is known."""
        resolver = uoa.Resolver(TRUST)
        for local in (LOCAL, OTHER_LOCAL):
            said(resolver, ALICE, PEER, local)

        assert known(resolver) == ALICE

    def test_an_expired_flow_is_no_second_client(self, clock: Clock) -> None:
        """A flow that had its time is in nobody's way."""
        resolver = uoa.Resolver(TRUST, ttl=60)
        said(resolver, ALICE, PEER, LOCAL)
        clock.now += 61
        said(resolver, BOB, PEER, OTHER_LOCAL)

        assert known(resolver) == BOB

    def test_a_lookup_is_no_datagram(self) -> None:
        """Asking counts nothing and makes nothing."""
        resolver = uoa.Resolver(TRUST)
        before = resolver.stats()

        assert known(resolver) is None
        assert resolver.stats() == before


# ---- Against a model -----------------------------------------------------------------

Flow = tuple[Address, Address]


@dataclass
class Entry:
    """What the model knows of a flow."""

    client: Address
    learned: float
    used: float


class Model:
    """The rules of the flow table, in plain Python: a dictionary in order of use."""

    def __init__(self, max_flows: int, ttl: float, max_age: float | None, policy: Policy) -> None:
        self.max_flows = max_flows
        self.ttl = ttl
        self.max_age = max_age
        self.policy = policy
        self.entries: OrderedDict[Flow, Entry] = OrderedDict()
        self.counters: Counter[str] = Counter()

    def is_live(self, entry: Entry, now: float) -> bool:
        """Return whether a flow still has time."""
        young = self.max_age is None or now - entry.learned <= self.max_age
        return young and now - entry.used <= self.ttl

    def drop(self, flow: Flow, counter: str) -> None:
        """Take a flow out."""
        del self.entries[flow]
        self.counters[counter] += 1

    def find(self, flow: Flow, now: float) -> Entry | None:
        """Return a live flow; one whose time is over leaves."""
        entry = self.entries.get(flow)
        if entry is not None and not self.is_live(entry, now):
            self.drop(flow, "expired")
            return None
        return entry

    def use(self, flow: Flow, now: float) -> Address | None:
        """Return the client of a datagram without a claim."""
        entry = self.find(flow, now)
        if entry is None:
            return None
        entry.used = now
        self.entries.move_to_end(flow)
        return entry.client

    def learn(self, flow: Flow, client: Address, now: float) -> Address:
        """Return the client of a datagram that names one."""
        entry = self.find(flow, now)
        if entry is not None and entry.client != client:
            self.counters["changed"] += 1
            if self.policy == "pin":
                return entry.client
            self.entries[flow] = Entry(client, now, now)
        elif entry is None:
            self.make_room(now)
            self.counters["learned"] += 1
            self.entries[flow] = Entry(client, now, now)
        else:
            entry.used = now
        self.entries.move_to_end(flow)
        return client

    def make_room(self, now: float) -> None:
        """Let the oldest flow go if its time is over, or its place is needed."""
        if not self.entries:
            return
        flow, entry = next(iter(self.entries.items()))
        if not self.is_live(entry, now):
            self.drop(flow, "expired")
        elif len(self.entries) == self.max_flows:
            self.drop(flow, "evicted")

    def lookup(self, peer: Address, local: Address | None, now: float) -> Address | None:
        """Return the one client behind a peer, if there is one."""
        clients = {
            entry.client
            for flow, entry in self.entries.items()
            if flow[0] == peer and local in (None, flow[1]) and self.is_live(entry, now)
        }
        return clients.pop() if len(clients) == 1 else None


PEERS: Final = (PEER, ("10.0.0.5", 4001), ("10.0.0.6", 4000), PEER6)
LOCALS: Final = (LOCAL, OTHER_LOCAL)
CLIENTS: Final = (ALICE, BOB, CAROL)
STRANGER: Final = ("192.0.2.1", 4000)
BAD: Final = (
    b"\x1f\x03\x00",
    option_of(("0.0.0.0", 9), PEER),
    option_of(ALICE, PEER) + option_of(BOB, PEER),
)

peers = st.sampled_from(PEERS)
locals_ = st.sampled_from(LOCALS)
clients = st.sampled_from(CLIENTS)


class FlowTable(RuleBasedStateMachine):
    """Any sequence of datagrams, lookups and pauses, for the table and for the model."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.monkeypatch = pytest.MonkeyPatch()
        self.clock.patch(self.monkeypatch)

    @initialize(
        max_flows=st.integers(1, 6),
        ttl=st.sampled_from([10.0, 30.0]),
        max_age=st.sampled_from([None, 5.0, 25.0]),
        policy=st.sampled_from(["replace", "pin"]),
    )
    def start(self, max_flows: int, ttl: float, max_age: float | None, policy: Policy) -> None:
        """Make a table and its model."""
        self.model = Model(max_flows, ttl, max_age, policy)
        self.resolver = uoa.Resolver(
            TRUST, max_flows=max_flows, ttl=ttl, max_age=max_age, policy=policy
        )
        self.trusted = True

    @rule(peer=peers, local=locals_, client=clients)
    def claim(self, peer: Address, local: Address, client: Address) -> None:
        """A datagram with an option."""
        found = said(self.resolver, client, peer, local)
        expected = None
        if self.trusted:
            expected = self.model.learn((peer, local), client, self.clock.now)

        assert found == expected

    @rule(peer=peers, local=locals_)
    def data(self, peer: Address, local: Address) -> None:
        """A datagram without an option."""
        found = said(self.resolver, None, peer, local)

        assert found == (self.model.use((peer, local), self.clock.now) if self.trusted else None)

    @rule(local=locals_, client=clients)
    def stranger(self, local: Address, client: Address) -> None:
        """A datagram with an option of a sender outside of `trust`."""
        assert said(self.resolver, client, STRANGER, local) is None

    @precondition(lambda self: self.trusted)
    @rule(peer=st.sampled_from(PEERS[:3]), local=locals_, option=st.sampled_from(BAD))
    def bad_claim(self, peer: Address, local: Address, option: bytes) -> None:
        """A datagram of a flow whose option breaks a rule: it touches nothing."""
        client, _ = self.resolver.resolve(peer, b"", [received_option(option, peer)], local=local)
        entry = self.model.find((peer, local), self.clock.now)

        assert (client.host, client.port) == (entry.client if entry else peer)

    @rule(seconds=st.sampled_from([0.001, 1.0, 5.0, 10.0, 11.0, 26.0]))
    def wait(self, seconds: float) -> None:
        """A pause."""
        self.clock.now += seconds

    @rule(trusted=st.booleans())
    def change_trust(self, trusted: bool) -> None:
        """The balancers are taken out of `trust`, or back in."""
        self.trusted = trusted
        self.resolver.set_trust(TRUST if trusted else [])

    @rule(peer=peers, local=st.none() | locals_)
    def lookup(self, peer: Address, local: Address | None) -> None:
        """A question without a datagram."""
        found = known(self.resolver, peer, local)

        assert found == (self.model.lookup(peer, local, self.clock.now) if self.trusted else None)

    @invariant()
    def counters_agree(self) -> None:
        """What came and went is the same on both sides."""
        if not hasattr(self, "model"):
            return
        stats = self.resolver.stats()

        assert stats["flows"] == len(self.model.entries) <= self.model.max_flows
        for name in ("learned", "changed", "expired", "evicted"):
            assert stats[name] == self.model.counters[name], name
        assert stats["datagrams"] == stats["resolved"] + stats["direct"] + stats["unknown"]

    def teardown(self) -> None:
        """Give the clock back."""
        self.monkeypatch.undo()


def test_the_table_and_the_model_agree() -> None:
    """Whatever happens, in whatever order, table and model have the same answers."""
    run_state_machine_as_test(
        FlowTable, settings=settings(max_examples=400, stateful_step_count=60)
    )
