# SPDX-License-Identifier: MIT
"""One datagram at a time: trust, claims, outcomes and what is counted. No time passes here."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import uoa
from tests.senders import Address, is_ipv6, option_of, received_claim, received_option
from uoa import wire

PEER = ("10.0.0.5", 4000)
PEER6 = ("fd00::5", 4000)
CLIENT = ("203.0.113.7", 5000)
CLIENT6 = ("2001:db8::7", 5000)
FORGED = ("198.51.100.1", 6000)
TRUST = "10.0.0.0/24,fd00::/64"

MSG_CTRUNC = int(socket.MSG_CTRUNC)
IP_PKTINFO = 8  # linux/in.h


def two_options(one: Address, other: Address, peer: tuple[Any, ...]) -> bytes:
    """Return an option area in which two options name clients."""
    first, second = option_of(one, peer), option_of(other, peer)
    if not is_ipv6(peer[0]):
        return first + second
    items = first[2:] + second[2:]
    return bytes([first[0], (2 + len(items) + 7) // 8 - 1]) + items + bytes(-(2 + len(items)) % 8)


def bad_options(peer: tuple[Any, ...]) -> dict[str, bytes]:
    """Return option areas from which nothing can be learned, by the reason."""
    option = option_of(FORGED, peer)
    where = 3 if is_ipv6(peer[0]) else 1
    return {
        "absent": b"\x11\x00\x01\x04\0\0\0\0" if is_ipv6(peer[0]) else b"\x01\x01\x01\x00",
        "malformed": option[:where] + bytes([option[where] - 1]) + option[where + 1 :],
        "invalid_addr": option_of((FORGED[0], 0), peer),
        "conflict": two_options(CLIENT, FORGED, peer),
    }


def bad_headers() -> dict[str, bytes]:
    """Return payloads that begin with a PROXY header that names nobody, by the reason."""
    header = wire.build("ppv2", CLIENT, vip=("198.51.100.80", 53))
    checksum = b"\x03\x00\x04\x00\x00\x00\x00"
    return {
        "absent": b"no header",
        "malformed": header[:20],
        "unsupported": header[:13] + b"\x00" + header[14:],
        "checksum": header[:14] + struct.pack("!H", 12 + len(checksum)) + header[16:] + checksum,
        "invalid_addr": wire.build("ppv2", ("224.0.0.1", 1)),
    }


def changes(resolver: uoa.Resolver, before: dict[str, int]) -> dict[str, int]:
    """Return the counters that differ from `before`, and by how much.

    Without `empty`: most datagrams here have no payload, which is not what they are about.
    """
    after = resolver.stats()
    return {
        name: after[name] - before[name]
        for name in after
        if after[name] != before[name] and name != "empty"
    }


class TestOptions:
    """The backend cmsg: options beside the payload."""

    @pytest.mark.parametrize(
        ("peer", "client"),
        [(PEER, CLIENT), (PEER6, CLIENT6), (PEER6, CLIENT), (PEER, CLIENT6)],
        ids=["4to4", "6to6", "nat46", "nat64"],
    )
    def test_each_pair_of_families(self, peer: Address, client: Address) -> None:
        """A client of either family is named in a packet of either family."""
        resolver = uoa.Resolver(TRUST)
        found, payload = resolver.resolve(peer, b"data", [received_claim(client, peer)])

        assert (found.host, found.port) == client
        assert (found.peer, found.source, found.dialect) == (peer, "cmsg", "ipo")
        assert payload == b"data"
        stats = resolver.stats()
        assert stats["datagrams"] == stats["resolved"] == stats["found"] == stats["found_ipo"] == 1
        assert stats["learned"] == stats["flows"] == 1

    @pytest.mark.parametrize("peer", [PEER, PEER6])
    @pytest.mark.parametrize("reason", ["absent", "malformed", "invalid_addr", "conflict"])
    def test_an_option_without_a_usable_claim_is_unknown(self, peer: Address, reason: str) -> None:
        """What names nobody leaves the client unknown, is counted by its reason, and not kept."""
        resolver = uoa.Resolver(TRUST)
        before = resolver.stats()
        option = received_option(bad_options(peer)[reason], peer)
        client, _ = resolver.resolve(peer, b"", [option])

        assert client.source == "none"
        assert (client.host, client.port) == peer
        assert changes(resolver, before) == {"datagrams": 1, "unknown": 1, reason: 1}

    @pytest.mark.parametrize("peer", [PEER, PEER6])
    def test_an_untrusted_sender_with_a_perfect_option_is_direct(self, peer: Address) -> None:
        """A claim from outside of `trust` is counted and ignored, and makes no flow."""
        resolver = uoa.Resolver("10.0.1.0/24")
        before = resolver.stats()
        client, _ = resolver.resolve(peer, b"", [received_claim(FORGED, peer)])

        assert client.direct
        assert (client.host, client.port) == peer
        assert changes(resolver, before) == {"datagrams": 1, "direct": 1, "untrusted": 1}

    def test_a_sender_that_claims_nothing_is_not_suspected(self) -> None:
        """Direct clients are no `untrusted` ones as long as they make no claim."""
        resolver = uoa.Resolver([])
        before = resolver.stats()
        resolver.resolve(PEER, b"data")

        assert changes(resolver, before) == {"datagrams": 1, "direct": 1}

    def test_claims_that_agree_are_one(self) -> None:
        """Two options that name the same client are no conflict."""
        option = received_option(two_options(CLIENT, CLIENT, PEER), PEER)
        client, _ = uoa.Resolver(TRUST).resolve(PEER, b"", [option])

        assert (client.host, client.port) == CLIENT

    def test_only_what_is_enabled_is_read(self) -> None:
        """A dialect that was not asked for names nobody."""
        option = received_option(wire.build("bd30", CLIENT, vip=FORGED), PEER)

        assert uoa.Resolver(TRUST).resolve(PEER, b"", [option])[0].source == "none"
        resolver = uoa.Resolver(TRUST, dialects=["bd"])
        assert resolver.resolve(PEER, b"", [option])[0].dialect == "bd30"

    def test_only_the_header_in_front_of_udp_counts(self) -> None:
        """Of several Destination Options headers the balancer's is the last one."""
        far = option_of(FORGED, PEER6)
        near = received_option(option_of(CLIENT6, PEER6), PEER6)
        other = received_option(bytes([43]) + far[1:], PEER6)
        for control in ([near], [other, near], [near, other]):
            client, _ = uoa.Resolver(TRUST).resolve(PEER6, b"", control)

            assert (client.host, client.port) == CLIENT6
        assert uoa.Resolver(TRUST).resolve(PEER6, b"", [other])[0].source == "none"

    @pytest.mark.parametrize("length", range(24))
    def test_a_cut_header_is_no_evidence(self, length: int) -> None:
        """An IPv6 header that is not as long as it says is not looked at."""
        resolver = uoa.Resolver(TRUST)
        before = resolver.stats()
        option = received_option(option_of(CLIENT6, PEER6)[:length], PEER6)

        assert resolver.resolve(PEER6, b"", [option])[0].source == "none"
        assert changes(resolver, before) == {"datagrams": 1, "unknown": 1}

    @pytest.mark.parametrize("says", [0, 1, 3, 255])
    def test_a_header_that_lies_about_its_length_is_no_evidence(self, says: int) -> None:
        """A whole option does not help when the header around it has another length."""
        option = option_of(CLIENT6, PEER6)
        lie = received_option(option[:1] + bytes([says]) + option[2:], PEER6)

        assert uoa.Resolver(TRUST).resolve(PEER6, b"", [lie])[0].source == "none"

    def test_control_messages_of_the_application_are_left_alone(self) -> None:
        """Other control messages, also of wrong sizes, change nothing."""
        others = [(1, 29, b"x" * 16), (0, 8, b"short"), (41, 50, b""), (0, 2, b"\x40")]
        control = [*others, received_claim(CLIENT, PEER), *others]

        assert uoa.Resolver(TRUST).resolve(PEER, b"", control)[0].resolved

    def test_the_option_of_a_dual_stack_socket_is_an_ipv4_one(self) -> None:
        """A mapped peer sends IPv4 packets, whose options come at the IPv4 level."""
        peer = ("::ffff:10.0.0.5", 4000, 0, 0)
        client, _ = uoa.Resolver(TRUST).resolve(peer, b"", [received_claim(CLIENT, peer)])

        assert (client.host, client.port, client.peer) == (*CLIENT, PEER)

    @given(st.binary(max_size=40), st.sampled_from([PEER, PEER6]), st.booleans())
    def test_any_bytes_have_one_outcome(self, option: bytes, peer: Address, cut: bool) -> None:
        """Whatever comes as an option, there is one outcome, and it is counted once."""
        resolver = uoa.Resolver(TRUST, dialects="ipo, bd", max_flows=4)
        control = [received_option(option, peer)]
        resolver.resolve(peer, b"data", control, MSG_CTRUNC if cut else 0)
        stats = resolver.stats()

        assert stats["datagrams"] == 1
        assert stats["resolved"] + stats["direct"] + stats["unknown"] == 1
        assert stats["flows"] == stats["resolved"] == stats["found"]


class TestControlTruncation:
    """MSG_CTRUNC: the kernel had more to say than fitted."""

    def test_the_client_is_unknown(self) -> None:
        """With ancillary data cut nothing is believed, not even what is there."""
        resolver = uoa.Resolver(TRUST)
        before = resolver.stats()
        client, _ = resolver.resolve(PEER, b"", [received_claim(CLIENT, PEER)], MSG_CTRUNC)

        assert client.source == "none"
        assert changes(resolver, before) == {"datagrams": 1, "unknown": 1, "control_truncated": 1}

    def test_a_known_flow_is_unknown_too_and_stays_known(self) -> None:
        """The lost part may have named another client: that datagram has no answer."""
        resolver = uoa.Resolver(TRUST)
        resolver.resolve(PEER, b"", [received_claim(CLIENT, PEER)])

        assert resolver.resolve(PEER, b"", [], MSG_CTRUNC)[0].source == "none"
        assert resolver.resolve(PEER, b"")[0].resolved

    def test_headers_are_not_in_ancillary_data(self) -> None:
        """What the application's own control messages lost has no part in a header."""
        resolver = uoa.Resolver(TRUST, dialects="ppv2")
        header = wire.build("ppv2", CLIENT)
        client, data = resolver.resolve(PEER, header + b"data", [], MSG_CTRUNC)

        assert (client.host, client.port, data) == (*CLIENT, b"data")
        assert resolver.stats()["control_truncated"] == 1

    def test_a_direct_client_stays_direct(self) -> None:
        """Who is not asked for claims cannot have lost one."""
        resolver = uoa.Resolver([])

        assert resolver.resolve(PEER, b"", [], MSG_CTRUNC)[0].direct
        assert resolver.stats()["control_truncated"] == 0


class TestLocalAddress:
    """Where a datagram arrived."""

    def test_packet_info_names_the_local_host(self) -> None:
        """The host comes from the packet info, the port from the socket."""
        hosts = socket.inet_aton("10.0.1.9") + socket.inet_aton("10.0.1.255")
        info = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i", 1) + hosts)
        client, _ = uoa.Resolver([]).resolve(PEER, b"", [info], local=("0.0.0.0", 53))

        assert client.local == ("10.0.1.9", 53)

    def test_packet_info_from_before_it_was_asked_for(self) -> None:
        """A datagram that was queued earlier has its destination only; that is the local host."""
        hosts = bytes(4) + socket.inet_aton("10.0.1.9")
        info = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i", 0) + hosts)
        client, _ = uoa.Resolver([]).resolve(PEER, b"", [info], local=("0.0.0.0", 53))

        assert client.local == ("10.0.1.9", 53)

    def test_packet_info_of_ipv6_has_the_interface_of_link_local_hosts(self) -> None:
        """The interface belongs to a link-local host and to no other."""
        for host, text in (("fe80::9", "fe80::9%7"), ("fd00::9", "fd00::9")):
            data = socket.inet_pton(socket.AF_INET6, host) + struct.pack("=i", 7)
            control = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, data)]
            client, _ = uoa.Resolver([]).resolve(PEER6, b"", control, local=("::", 53))

            assert client.local == (text, 53)

    def test_without_any_it_is_not_known(self) -> None:
        """`local` is None where nobody told."""
        assert uoa.Resolver([]).resolve(PEER, b"")[0].local is None


class TestRuleA:
    """Addresses that can be no client."""

    @pytest.mark.parametrize(
        "client",
        [
            ("203.0.113.7", 0),
            ("0.1.2.3", 1),
            ("127.0.0.1", 1),
            ("224.0.0.1", 1),
            ("239.255.255.255", 1),
            ("255.255.255.255", 1),
            ("::", 1),
            ("::1", 1),
            ("ff02::1", 1),
            ("::ffff:127.0.0.1", 1),
            ("::ffff:0.0.0.0", 1),
        ],
    )
    @pytest.mark.parametrize("peer", [PEER, PEER6])
    def test_no_balancer_can_name_them(self, peer: Address, client: Address) -> None:
        """A claim of such an address is counted and leaves no flow."""
        resolver = uoa.Resolver(TRUST)

        assert resolver.resolve(peer, b"", [received_claim(client, peer)])[0].source == "none"
        assert (resolver.stats()["invalid_addr"], resolver.stats()["flows"]) == (1, 0)

    @pytest.mark.parametrize(
        "host", ["10.0.0.1", "169.254.1.1", "192.0.2.1", "240.0.0.1", "fe80::1", "64:ff9b::a00:1"]
    )
    def test_unusual_clients_are_clients(self, host: str) -> None:
        """Private, link-local, documentation and translated addresses can be clients."""
        client, _ = uoa.Resolver(TRUST).resolve(PEER, b"", [received_claim((host, 1), PEER)])

        assert (client.host, client.resolved) == (host, True)

    @pytest.mark.parametrize("host", ["127.0.0.7", "::1", "::ffff:127.0.0.7"])
    @pytest.mark.parametrize("peer", [("127.0.0.5", 4000), ("::1", 4000)])
    def test_a_loopback_balancer_can_have_loopback_clients(self, peer: Address, host: str) -> None:
        """On one machine everything can be tried: loopback may name loopback."""
        resolver = uoa.Resolver("127.0.0.0/8,::1")
        client, _ = resolver.resolve(peer, b"", [received_claim((host, 1), peer)])

        assert client.resolved
        assert client.host == host.removeprefix("::ffff:")

    def test_a_client_inside_trust_is_believed_and_counted(self) -> None:
        """Clients may live beside the balancers; chained balancers look the same, so it shows."""
        resolver = uoa.Resolver(TRUST)
        neighbour = ("10.0.0.77", 1)
        client, _ = resolver.resolve(PEER, b"", [received_claim(neighbour, PEER)])
        resolver.resolve(("10.0.0.6", 1), b"", [received_claim(CLIENT, PEER)])

        assert (client.host, client.port) == neighbour
        assert resolver.stats()["claims_trusted"] == 1


class TestTrusts:
    """Resolver.trusts(): is this a balancer?"""

    def test_it_follows_the_trust_set(self) -> None:
        """A peer is trusted as long as a prefix of its family holds it."""
        resolver = uoa.Resolver(["10.0.0.0/24", "2001:db8::/32"])

        assert resolver.trusts(("10.0.0.5", 1))
        assert resolver.trusts(("2001:db8::5", 1, 0, 0))
        assert resolver.trusts(("::ffff:10.0.0.5", 1, 0, 0))
        assert not resolver.trusts(("10.0.1.5", 1))
        resolver.set_trust([])
        assert not resolver.trusts(("10.0.0.5", 1))


class TestEmptyDatagrams:
    """Standalone options, headers alone, and datagrams that never had a payload."""

    @pytest.mark.parametrize(
        ("payload", "empty"),
        [(b"", 1), (b"x", 0), (wire.build("ppv2", CLIENT), 1), (wire.build_local(), 1)],
        ids=["nothing", "payload", "header alone", "local alone"],
    )
    def test_they_are_counted(self, payload: bytes, empty: int) -> None:
        """A datagram of which nothing is left for the application is counted `empty`."""
        resolver = uoa.Resolver([PEER[0]], dialects="ppv2")
        resolver.resolve(PEER, payload)

        assert resolver.stats()["empty"] == empty

    def test_a_header_of_a_stranger_is_payload(self) -> None:
        """What is not believed is not taken off, so it is not nothing."""
        resolver = uoa.Resolver([], dialects="ppv2")
        resolver.resolve(PEER, wire.build("ppv2", CLIENT))

        assert resolver.stats()["empty"] == 0


class TestPayloadHeaders:
    """The backend proxy: headers in front of the payload."""

    @pytest.mark.parametrize(
        ("peer", "client"), [(PEER, CLIENT), (PEER6, CLIENT6), (PEER6, CLIENT), (PEER, CLIENT6)]
    )
    @pytest.mark.parametrize("dialect", ["ppv2", "spp"])
    def test_a_header_names_the_client_and_is_taken_off(
        self, dialect: str, peer: Address, client: Address
    ) -> None:
        """The application gets what stands behind the header, and the client from it."""
        resolver = uoa.Resolver(TRUST, dialects=dialect)
        vip = ("2001:db8::80", 53) if ":" in client[0] else ("198.51.100.80", 53)
        found, payload = resolver.resolve(peer, wire.build(dialect, client, vip=vip) + b"data")

        assert (found.host, found.port) == client
        assert (found.source, found.dialect, found.vip) == ("proxy", dialect, vip)
        assert (found.age, payload) == (0.0, b"data")

    @pytest.mark.parametrize("dialect", ["ppv2", "spp"])
    def test_each_datagram_speaks_for_itself(self, dialect: str) -> None:
        """A header says nothing of the next datagram: no flow is made of it."""
        resolver = uoa.Resolver(TRUST, dialects=dialect)
        for client in (CLIENT, FORGED, CLIENT):
            found, _ = resolver.resolve(PEER, wire.build(dialect, client))
            assert (found.host, found.port) == client

        assert resolver.resolve(PEER, b"data")[0].source == "none"
        assert (resolver.stats()["flows"], resolver.stats()["learned"]) == (0, 0)
        assert resolver.lookup(PEER) is None

    def test_only_the_first_header_counts(self) -> None:
        """What stands behind a header is payload, even if it looks like a header."""
        forged = wire.build("ppv2", FORGED)
        resolver = uoa.Resolver(TRUST, dialects="ppv2")
        client, payload = resolver.resolve(PEER, wire.build("ppv2", CLIENT) + forged)

        assert (client.host, client.port) == CLIENT
        assert payload == forged

    def test_an_untrusted_sender_keeps_its_payload(self) -> None:
        """A header from outside of `trust` is payload: nothing is taken off."""
        resolver = uoa.Resolver([], dialects="ppv2,spp")
        for dialect in ("ppv2", "spp"):
            data = wire.build(dialect, FORGED) + b"data"
            client, payload = resolver.resolve(PEER, data)

            assert client.direct
            assert payload == data
        assert (resolver.stats()["untrusted"], resolver.stats()["flows"]) == (2, 0)

    def test_local_is_direct_and_leaves_no_flow(self) -> None:
        """With LOCAL a trusted balancer speaks for itself: it is the client, to be answered."""
        resolver = uoa.Resolver(TRUST, dialects="ppv2", missing="raise")
        before = resolver.stats()
        client, payload = resolver.resolve(PEER, wire.build_local() + b"ping")

        assert (client.host, client.port) == client.peer == PEER
        assert client.direct
        assert payload == b"ping"
        assert changes(resolver, before) == {"datagrams": 1, "direct": 1, "local": 1}

    @pytest.mark.parametrize("reason", list(bad_headers()))
    def test_a_header_that_names_nobody_is_unknown(self, reason: str) -> None:
        """A header without a usable client leaves it unknown; only a sound one is taken off."""
        resolver = uoa.Resolver(TRUST, dialects="ppv2")
        before = resolver.stats()
        header = bad_headers()[reason]
        client, payload = resolver.resolve(PEER, header)

        assert client.source == "none"
        assert payload == (b"" if reason in ("unsupported", "invalid_addr") else header)
        assert changes(resolver, before) == {"datagrams": 1, "unknown": 1, reason: 1}

    def test_options_are_nothing_to_it(self) -> None:
        """A resolver for headers believes no option."""
        resolver = uoa.Resolver(TRUST, dialects="ppv2")

        assert resolver.resolve(PEER, b"", [received_claim(FORGED, PEER)])[0].source == "none"

    @given(st.binary(max_size=80), st.sampled_from(["ppv2", "spp"]), st.integers(0, 60))
    def test_any_payload_has_one_outcome(self, data: bytes, dialect: str, cut: int) -> None:
        """Whatever comes, there is one outcome, and no byte of the payload is invented."""
        resolver = uoa.Resolver(TRUST, dialects=dialect, max_flows=1)
        data = wire.build(dialect, CLIENT)[:cut] + data
        _, payload = resolver.resolve(PEER, data)
        stats = resolver.stats()

        assert data.endswith(payload)
        assert stats["resolved"] + stats["direct"] + stats["unknown"] == 1


class TestOnce:
    """Balancers that write PROXY v2 in front of a flow's first datagrams only."""

    def test_later_datagrams_are_from_the_client_of_the_first(self) -> None:
        """A datagram without a header is from the client that its flow's header named."""
        resolver = uoa.Resolver(TRUST, dialects="ppv2", once=True)
        resolver.resolve(PEER, wire.build("ppv2", CLIENT, vip=("198.51.100.80", 53)))
        client, payload = resolver.resolve(PEER, b"data")

        assert ((client.host, client.port), payload) == (CLIENT, b"data")
        assert (client.source, client.dialect) == ("proxy", "ppv2")
        assert client.vip == ("198.51.100.80", 53)
        found = resolver.lookup(PEER)
        assert found is not None
        assert (found.host, found.port, found.source) == (*CLIENT, "proxy")

    def test_a_newer_header_replaces(self) -> None:
        """A balancer that reuses a port names the new client, and "pin" keeps the first."""
        for policy, believed in (("replace", FORGED), ("pin", CLIENT)):
            resolver = uoa.Resolver(TRUST, dialects="ppv2", once=True, policy=policy)  # type: ignore[arg-type]
            for claim in (CLIENT, FORGED):
                resolver.resolve(PEER, wire.build("ppv2", claim))
            client, _ = resolver.resolve(PEER, b"data")

            assert (client.host, client.port) == believed
            assert resolver.stats()["changed"] == 1

    def test_local_leaves_the_flow(self) -> None:
        """A health check in the middle of a flow is direct, and says nothing of its client."""
        resolver = uoa.Resolver(TRUST, dialects="ppv2", once=True)
        resolver.resolve(PEER, wire.build("ppv2", CLIENT))

        assert resolver.resolve(PEER, wire.build_local())[0].direct
        assert resolver.resolve(PEER, b"data")[0].host == CLIENT[0]

    def test_spp_is_never_remembered(self) -> None:
        """SPP is on every datagram: one without it has no client."""
        resolver = uoa.Resolver(TRUST, dialects="ppv2,spp", once=True)
        resolver.resolve(PEER, wire.build("spp", CLIENT))

        assert resolver.resolve(PEER, b"data")[0].source == "none"
        assert resolver.stats()["flows"] == 0


class TestMissing:
    """What `missing` does, as far as a resolver does it."""

    def test_raise_tells_the_peer(self) -> None:
        """missing="raise" makes an unknown client an exception that names the peer."""
        resolver = uoa.Resolver(TRUST, missing="raise")
        with pytest.raises(uoa.UnknownClientError, match=r"10\.0\.0\.5 port 4000") as caught:
            resolver.resolve(PEER, b"")

        assert caught.value.peer == PEER
        assert isinstance(caught.value, LookupError)

    def test_raise_lets_known_clients_pass(self) -> None:
        """Direct and resolved clients are not missing."""
        resolver = uoa.Resolver(TRUST, missing="raise")

        assert resolver.resolve(PEER, b"", [received_claim(CLIENT, PEER)])[0].resolved
        assert resolver.resolve(("192.0.2.1", 1), b"")[0].direct

    def test_peer_reports_the_sender(self) -> None:
        """missing="peer" is the default: the peer, marked as unknown."""
        client, _ = uoa.Resolver(TRUST).resolve(PEER, b"")

        assert (client.host, client.port, client.source) == (*PEER, "none")


class TestConstruction:
    """What a resolver refuses to be."""

    @pytest.mark.parametrize(
        ("backend", "dialects", "expected"),
        [
            ("auto", None, ("cmsg", ("ipo",))),
            ("auto", "bd", ("cmsg", ("bd",))),
            ("auto", ["ipo", "bd", "ipo"], ("cmsg", ("ipo", "bd"))),
            ("auto", "ppv2", ("proxy", ("ppv2",))),
            ("auto", "ppv2,spp", ("proxy", ("ppv2", "spp"))),
            ("cmsg", None, ("cmsg", ("ipo",))),
            ("proxy", None, ("proxy", ("ppv2",))),
            ("proxy", "spp", ("proxy", ("spp",))),
        ],
    )
    def test_the_backend_follows_from_the_dialects(
        self,
        backend: str,
        dialects: str | Iterable[str] | None,
        expected: tuple[str, tuple[str, ...]],
    ) -> None:
        """ "auto" takes the backend that reads the dialects; defaults fit the backend."""
        resolver = uoa.Resolver(TRUST, backend, dialects)

        assert (resolver.backend, resolver.dialects) == expected
        assert resolver.backends == (expected[0],)

    @pytest.mark.parametrize(
        ("arguments", "names", "way_out"),
        [
            ({"dialects": "ipo,ppv2"}, "ipo, ppv2", "one resolver a port"),
            ({"backend": "cmsg", "dialects": "opp"}, "opp", "it reads bd, ipo"),
            ({"backend": "sockopt", "dialects": "spp"}, "spp", "it reads bd, ipo, opp"),
            ({"backend": "sockopt", "policy": "pin"}, "policy: 'pin'", "set the policy there"),
            ({"once": True}, "once: ipo", "only ppv2"),
            ({"backend": "cmsg", "dialects": "ppv2"}, "'cmsg' cannot read ppv2", "it reads bd"),
            ({"backend": "proxy", "dialects": "ipo"}, "'proxy' cannot read ipo", "reads ppv2, spp"),
            ({"dialects": "proxy"}, "'proxy'", "ipo, opp, bd, ppv2, spp"),
            ({"dialects": "bd31"}, "'bd31'", "ipo, opp, bd, ppv2, spp"),
            ({"backend": "ppv2"}, "'ppv2'", "auto, cmsg, proxy"),
            ({"missing": "ignore"}, "'ignore'", "peer, drop, raise"),
            ({"policy": "first"}, "'first'", "replace, pin"),
            ({"policy": "pin", "dialects": "spp"}, "policy: 'pin'", "leave it at 'replace'"),
            ({"max_flows": 0}, "max_flows: 0", "between 1 and"),
            ({"max_flows": 2**28 + 1}, "max_flows: 268435457", "between 1 and"),
            ({"ttl": 0}, "ttl: 0", "above 0"),
            ({"ttl": float("nan")}, "ttl: nan", "above 0"),
            ({"max_age": -1}, "max_age: -1", "above 0"),
        ],
    )
    def test_wrong_arguments_are_refused_with_the_way_out(
        self, arguments: dict[str, Any], names: str, way_out: str
    ) -> None:
        """An error names the argument, its value, and what to write instead."""
        with pytest.raises(uoa.ConfigurationError) as caught:
            uoa.Resolver(TRUST, **arguments)

        assert names in str(caught.value)
        assert way_out in str(caught.value)
        assert str(caught.value).startswith(tuple(arguments))
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("peer", ["balancer", "10.0.0", "10.0.0.5\0", "[::1]", "", "1::2%nil"])
    def test_a_peer_that_is_no_address_is_refused(self, peer: str) -> None:
        """Names are not looked up: an address is an address, or an error."""
        resolver = uoa.Resolver(TRUST)
        for use in (resolver.lookup, lambda address: resolver.resolve(address, b"")):
            with pytest.raises(uoa.ConfigurationError, match="not an IPv4 or IPv6 address"):
                use((peer, 1))


class TestLog:
    """Logger `uoa`: the first of each reason, with the way out."""

    @staticmethod
    def provoke(dialects: str, times: int) -> tuple[uoa.Resolver, uoa.Resolver]:
        """Make everything happen that is worth a line; return who counted."""
        resolver = uoa.Resolver(TRUST, dialects=dialects, max_flows=1)
        stranger = uoa.Resolver([], dialects=dialects)
        for _ in range(times):
            if dialects == "ppv2":
                for header in bad_headers().values():
                    resolver.resolve(PEER, header)
                continue
            for option in bad_options(PEER).values():
                resolver.resolve(PEER, b"", [received_option(option, PEER)])
            for client in (CLIENT, FORGED):
                resolver.resolve(PEER, b"", [received_claim(client, PEER)])
            resolver.resolve(("10.0.0.6", 1), b"", [received_claim(CLIENT, PEER)])
            resolver.resolve(PEER, b"", [], MSG_CTRUNC)
            stranger.resolve(PEER, b"", [received_claim(CLIENT, PEER)])
        return resolver, stranger

    @pytest.mark.parametrize(
        ("dialects", "expected"),
        [
            (
                "ipo",
                {
                    "malformed": "uoa decode",
                    "invalid_addr": "no client",
                    "conflict": "an option of its own",
                    "changed": 'policy="pin"',
                    "evicted": "raise max_flows",
                    "control_truncated": "more than fits",
                    "untrusted": "add it to `trust`",
                },
            ),
            (
                "ppv2",
                {
                    "malformed": "uoa decode",
                    "unsupported": "no UDP client",
                    "checksum": "fails its checksum",
                    "invalid_addr": "no client",
                },
            ),
        ],
    )
    @pytest.mark.parametrize("times", [1, 3])
    def test_the_first_of_each_reason_is_told_once(
        self, caplog: pytest.LogCaptureFixture, dialects: str, expected: dict[str, str], times: int
    ) -> None:
        """Each reason is one WARNING that says what to do; the others are counted only."""
        with caplog.at_level(logging.DEBUG, "uoa"):
            resolver, stranger = self.provoke(dialects, times)

        told = {record.getMessage().partition(":")[0]: record for record in caplog.records}
        assert sorted(told) == sorted(expected)
        assert len(caplog.records) == len(expected)
        for name, way_out in expected.items():
            assert (told[name].levelno, told[name].name) == (logging.WARNING, "uoa")
            assert way_out in told[name].getMessage()
            assert max(resolver.stats()[name], stranger.stats()[name]) >= times

    def test_each_resolver_tells(self, caplog: pytest.LogCaptureFixture) -> None:
        """What one resolver has told another one tells again."""
        for _ in range(2):
            self.provoke("ppv2", times=2)

        assert len(caplog.records) == 2 * 4

    def test_ordinary_traffic_is_not_told(self, caplog: pytest.LogCaptureFixture) -> None:
        """Clients that are resolved, direct or unknown for want of a claim are no news."""
        with caplog.at_level(logging.DEBUG, "uoa"):
            resolver = uoa.Resolver(TRUST)
            resolver.resolve(PEER, b"")
            resolver.resolve(PEER, b"", [received_claim(CLIENT, PEER)])
            resolver.resolve(("192.0.2.1", 1), b"")

        assert caplog.records == []


class TestStats:
    """The counters, by name."""

    def test_every_reason_and_dialect_has_one(self) -> None:
        """The reasons of the parser and a `found_` for each dialect are among the counters."""
        stats = uoa.Resolver([]).stats()

        assert set(wire.REASONS) <= set(stats)
        assert {f"found_{name}" for name in wire.DIALECT_NAMES} <= set(stats)
        assert set(stats.values()) == {0}

    @pytest.mark.parametrize("dialect", ["ipo", "bd31", "bd30", "bd29"])
    def test_options_are_counted_by_dialect(self, dialect: str) -> None:
        """`found` says how many claims there were, `found_…` in which words."""
        resolver = uoa.Resolver(TRUST, dialects="ipo,bd")
        option = received_claim(CLIENT, PEER, dialect)
        before = resolver.stats()
        resolver.resolve(PEER, b"", [option])

        counted = changes(resolver, before)
        assert {name: n for name, n in counted.items() if name.startswith("found")} == {
            "found": 1,
            f"found_{dialect}": 1,
        }
