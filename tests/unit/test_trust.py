# SPDX-License-Identifier: MIT
"""Whose claims are believed: the `trust` argument."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import socketserver
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import uoa
import uoa.asyncio
import uoa.socketserver

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the caller of the tests has set away from them."""
    monkeypatch.delenv("UOA_TRUST", raising=False)


def trusts(trust: str | Iterable[str] | None, host: str) -> bool:
    """Return whether a resolver with this `trust` would believe a peer at `host`."""
    return is_trusted(uoa.Resolver(trust, max_flows=1), host)


def is_trusted(resolver: uoa.Resolver, host: str) -> bool:
    """Return whether this resolver would believe a peer at `host`."""
    client, _ = resolver.resolve((host, 1), b"")
    return not client.direct


class TestPrefixes:
    """What is inside a prefix."""

    @pytest.mark.parametrize(
        ("prefix", "inside", "outside"),
        [
            ("10.0.0.0/24", ["10.0.0.0", "10.0.0.255"], ["9.255.255.255", "10.0.1.0"]),
            ("10.0.0.1", ["10.0.0.1"], ["10.0.0.0", "10.0.0.2", "::1"]),
            ("10.0.0.1/32", ["10.0.0.1"], ["10.0.0.0", "10.0.0.2"]),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::", "2001:db8::1"]),
            ("128.0.0.0/1", ["128.0.0.0", "255.255.255.255"], ["127.255.255.255"]),
            ("2001:db8::/33", ["2001:db8:7fff:ffff::"], ["2001:db8:8000::", "2001:db7::"]),
            ("2001:db8::1", ["2001:db8::1"], ["2001:db8::", "2001:db8::2"]),
            ("::/0", ["::", "ffff::", "64:ff9b::a00:1"], ["10.0.0.1", "::ffff:10.0.0.1"]),
        ],
    )
    def test_a_prefix_holds_its_addresses_and_no_other(
        self, prefix: str, inside: list[str], outside: list[str]
    ) -> None:
        """A prefix ends exactly where its length says, and holds one family only."""
        assert [host for host in inside if not trusts(prefix, host)] == []
        assert [host for host in outside if trusts(prefix, host)] == []

    @pytest.mark.parametrize("prefix", ["::ffff:10.0.0.0/120", "::ffff:a00:0/120"])
    def test_a_mapped_prefix_is_ipv4(self, prefix: str) -> None:
        """::ffff:10.0.0.0/120 is another way to write 10.0.0.0/24."""
        assert trusts(prefix, "10.0.0.255")
        assert trusts(prefix, "::ffff:10.0.0.255")
        assert not trusts(prefix, "10.0.1.0")

    def test_a_prefix_around_the_mapped_ones_holds_no_ipv4(self) -> None:
        """A prefix that is shorter than ::ffff:0:0/96 means IPv6 addresses."""
        assert not trusts("::/64", "10.0.0.1")
        assert trusts("::/64", "::7")
        assert trusts("::ffff:0:0/96", "203.0.113.7")

    def test_the_interface_of_a_peer_does_not_matter(self) -> None:
        """A link-local peer is inside a prefix on every interface."""
        client, _ = uoa.Resolver("fe80::/10").resolve(("fe80::1", 1, 0, 7), b"")

        assert not client.direct

    def test_overlapping_prefixes_add_up(self) -> None:
        """Prefixes inside others, beside others and given twice change nothing for the others."""
        prefixes = ["10.0.0.0/8", "10.0.0.0/24", "10.255.0.0/16", "11.0.0.0/8", "10.0.0.0/8"]
        for trust in itertools.permutations(prefixes):
            resolver = uoa.Resolver(trust, max_flows=1)

            assert all(is_trusted(resolver, h) for h in ("10.0.0.0", "10.9.9.9", "11.255.255.255"))
            assert not any(is_trusted(resolver, host) for host in ("9.255.255.255", "12.0.0.0"))

    def test_a_thousand_prefixes_are_searched_exactly(self) -> None:
        """In a long list every second address is found, and none between them."""
        resolver = uoa.Resolver([f"10.0.{n // 128}.{n % 128 * 2}/32" for n in range(1000)])

        for n in range(1000):
            assert is_trusted(resolver, f"10.0.{n // 128}.{n % 128 * 2}")
            assert not is_trusted(resolver, f"10.0.{n // 128}.{n % 128 * 2 + 1}")


@st.composite
def networks(draw: st.DrawFn) -> IPNetwork:
    """Draw a prefix, from a space so narrow that prefixes meet."""
    base, bits = draw(st.sampled_from([(0x0A000000, 32), (0x20010DB8 << 96, 128)]))
    length = draw(st.integers(0, bits) | st.integers(bits - 6, bits))
    number = (base | draw(st.integers(0, 63))) >> (bits - length) << (bits - length)
    if bits == 32:
        return ipaddress.IPv4Network((number, length))
    return ipaddress.IPv6Network((number, length))


@st.composite
def probes(draw: st.DrawFn, chosen: Sequence[IPNetwork]) -> list[str]:
    """Draw addresses at, around and far from the ends of prefixes."""
    found = ["10.0.0.1", "2001:db8::1", "::", "0.0.0.0"]
    for network in chosen:
        space = 2**network.max_prefixlen
        first, last = int(network.network_address), int(network.broadcast_address)
        for number in (first - 1, first, last, last + 1, draw(st.integers(first, last))):
            found.append(str(type(network.network_address)(number % space)))
    return found


class TestAgainstIpaddress:
    """The standard library has the same rules; it is slow, and was not written by us."""

    @given(st.data())
    def test_both_hold_the_same_addresses(self, data: st.DataObject) -> None:
        """An address is trusted exactly if ipaddress finds it in one of the prefixes."""
        chosen = data.draw(st.lists(networks(), max_size=8))
        resolver = uoa.Resolver([str(network) for network in chosen], max_flows=1)
        for host in data.draw(probes(chosen)):
            address = ipaddress.ip_address(host)
            if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
                continue

            assert is_trusted(resolver, host) == any(address in network for network in chosen)

    @given(
        st.from_regex(r"[0-9a-f:.]{1,24}(/[0-9 +_-]{0,4})?", fullmatch=True)
        | networks().map(str)
        | st.tuples(st.ip_addresses(), st.integers(-1, 130)).map(lambda p: f"{p[0]}/{p[1]}")
    )
    @example("1.2.3")
    @example("1.2.3.04")
    @example("::1/0128")
    @example("10.0.0.0/255.0.0.0")
    @example("10.0.0.0/+8")
    @example("fe80::1%1")
    @example("10.0.0.0/8/8")
    def test_what_one_refuses_the_other_refuses(self, text: str) -> None:
        """No text is a prefix for us and none for ipaddress."""
        try:
            resolver = uoa.Resolver([text], max_flows=1)
        except uoa.TrustError as error:
            assert repr(text.strip()) in str(error)  # noqa: PT017
            return

        if text.strip():
            network = ipaddress.ip_network(text.strip())
            assert is_trusted(resolver, str(network.network_address))


class TestWriting:
    """How `trust` can be written, and what is refused."""

    @pytest.mark.parametrize(
        "trust",
        [
            "10.0.0.0/24,2001:db8::/32",
            " 10.0.0.0/24 , 2001:db8::/32, ",
            ["10.0.0.0/24", "2001:db8::/32"],
            ("10.0.0.0/24,2001:db8::/32",),
            iter(["10.0.0.0/24", "2001:db8::/32"]),
        ],
    )
    def test_lists_and_comma_separated_strings_are_the_same(
        self, trust: str | Iterable[str]
    ) -> None:
        """Prefixes can come as any iterable, as one string, or as several in each item."""
        resolver = uoa.Resolver(trust)

        assert resolver.trust == ("10.0.0.0/24", "2001:db8::/32")
        assert is_trusted(resolver, "10.0.0.1")
        assert is_trusted(resolver, "2001:db8::1")

    def test_objects_of_ipaddress_are_prefixes(self) -> None:
        """Networks and addresses of the ipaddress module can be given as they are."""
        objects = [ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_address("2001:db8::1")]

        assert uoa.Resolver(map(str, objects)).trust == uoa.Resolver(objects).trust  # type: ignore[arg-type]

    def test_an_empty_list_trusts_nobody(self) -> None:
        """With trust=[] every sender is a direct client."""
        assert not trusts([], "10.0.0.1")
        assert not trusts([], "::1")

    def test_the_environment_is_read_when_nothing_is_given(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """UOA_TRUST stands in for a `trust` that is not given, and only for that."""
        monkeypatch.setenv("UOA_TRUST", "10.0.0.0/24, 2001:db8::/32")

        assert uoa.Resolver().trust == ("10.0.0.0/24", "2001:db8::/32")
        assert uoa.Resolver("192.0.2.0/24").trust == ("192.0.2.0/24",)
        assert uoa.Resolver([]).trust == ()

    def test_whatever_takes_trust_reads_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Endpoints, sockets, servers and wrappers without `trust` have that of UOA_TRUST."""

        async def endpoint() -> uoa.Resolver:
            transport, _ = await uoa.asyncio.create_datagram_endpoint(
                asyncio.DatagramProtocol, ("127.0.0.1", 0)
            )
            transport.close()
            resolver: uoa.Resolver = transport.get_extra_info("uoa.resolver")
            return resolver

        def found() -> list[tuple[str, ...]]:
            with (
                uoa.Socket() as sock,
                uoa.socketserver.UDPServer(
                    ("127.0.0.1", 0), socketserver.DatagramRequestHandler
                ) as server,
            ):
                resolvers = (asyncio.run(endpoint()), sock.resolver, server.resolver)
                return [resolver.trust for resolver in resolvers]

        monkeypatch.setenv("UOA_TRUST", "10.0.0.5/32, fd00::/64")
        assert found() == [("10.0.0.5/32", "fd00::/64")] * 3
        monkeypatch.delenv("UOA_TRUST")
        for use in (
            uoa.Socket,
            lambda: uoa.wrap(asyncio.DatagramProtocol),
            lambda: asyncio.run(endpoint()),
        ):
            with pytest.raises(uoa.TrustError, match="UOA_TRUST"):
                use()

    def test_an_empty_environment_trusts_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """UOA_TRUST set to nothing is a decision, like an empty list."""
        monkeypatch.setenv("UOA_TRUST", "")

        assert not trusts(None, "10.0.0.1")

    def test_nothing_given_is_refused_with_what_to_write(self) -> None:
        """Without `trust` and UOA_TRUST there is no resolver, and the error says what to write."""
        with pytest.raises(uoa.TrustError) as caught:
            uoa.Resolver()

        assert 'trust=["10.0.0.0/24"]' in str(caught.value)
        assert "UOA_TRUST" in str(caught.value)
        assert isinstance(caught.value, ValueError)

    def test_everybody_is_trusted_with_a_warning(self) -> None:
        """trust="*" believes every sender of both families, and warns whoever wrote it."""
        with pytest.warns(uoa.TrustWarning, match="name your balancers") as caught:
            resolver = uoa.Resolver(["10.0.0.0/24", "*"])

        assert caught[0].filename == __file__
        assert is_trusted(resolver, "203.0.113.7")
        assert is_trusted(resolver, "2001:db8::7")

    def test_the_warning_names_the_line_that_trusts(self) -> None:
        """set_trust() and decode() warn where they are called, too."""
        resolver = uoa.Resolver([])
        for use in (resolver.set_trust, lambda trust: uoa.wire.decode(b"", trusted=trust)):
            with pytest.warns(uoa.TrustWarning) as caught:
                use("*")

            assert caught[0].filename == __file__

    @pytest.mark.parametrize(
        "prefix",
        [
            "balancer.example",
            "10.0.0.0/33",
            "2001:db8::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/0x8",
            "10.0.0/24",
            "10.0.0.0 /24",
            "010.0.0.0/8",
            "10.0.0.0/8/8",
            "fe80::1%lo/128",
            "::ffff:10.0.0.0/24/1",
            "[2001:db8::1]",
            "[]",
            "10.0.0.1:53",
            "10.0.0.0/24\0,",
            "10.0.0.0\0/24",
            "1" * 5000,
            "é",
            "\udc80",
        ],
    )
    def test_a_malformed_prefix_is_named(self, prefix: str) -> None:
        """What is no prefix is refused, by name, wherever it stands in the list."""
        with pytest.raises(uoa.TrustError) as caught:
            uoa.Resolver(["10.0.0.0/24", prefix, "10.0.1.0/24"])

        assert repr(prefix.rstrip(",")) in str(caught.value)
        assert "such as 10.0.0.0/24" in str(caught.value)

    @pytest.mark.parametrize(
        ("prefix", "network", "host"),
        [
            ("10.0.0.1/24", "10.0.0.0/24", "10.0.0.1"),
            ("10.0.0.1/0", "0.0.0.0/0", "10.0.0.1"),
            ("2001:db8::1/32", "2001:db8::/32", "2001:db8::1"),
            ("2001:db8::1/127", "2001:db8::/127", "2001:db8::1"),
        ],
    )
    def test_bits_behind_the_length_are_refused_with_both_ways_out(
        self, prefix: str, network: str, host: str
    ) -> None:
        """A prefix with host bits is a mistake: the error writes the network and the host."""
        with pytest.raises(uoa.TrustError) as caught:
            uoa.Resolver(prefix)

        for text in (repr(prefix), network, f"or {host} for the host"):
            assert text in str(caught.value)


class TestAtRunTime:
    """set_trust(), while traffic goes on."""

    def test_the_set_is_replaced(self) -> None:
        """After set_trust() the new prefixes count, and the old ones do not."""
        resolver = uoa.Resolver("10.0.0.0/24")
        resolver.set_trust(["10.0.1.0/24"])

        assert resolver.trust == ("10.0.1.0/24",)
        assert not is_trusted(resolver, "10.0.0.1")
        assert is_trusted(resolver, "10.0.1.1")

    def test_a_malformed_set_changes_nothing(self) -> None:
        """A refused set leaves the resolver with the one it had."""
        resolver = uoa.Resolver("10.0.0.0/24")
        with pytest.raises(uoa.TrustError):
            resolver.set_trust(["10.0.1.0/24", "nonsense"])

        assert resolver.trust == ("10.0.0.0/24",)
        assert is_trusted(resolver, "10.0.0.1")
        assert not is_trusted(resolver, "10.0.1.1")

    def test_a_closed_resolver_says_so(self) -> None:
        """A resolver that was closed refuses everything with an error of its own."""
        resolver = uoa.Resolver("10.0.0.0/24")
        resolver.close()
        resolver.close()

        for use in (
            lambda: resolver.set_trust([]),
            lambda: resolver.resolve(("10.0.0.1", 1), b""),
            lambda: resolver.lookup(("10.0.0.1", 1)),
            resolver.stats,
        ):
            with pytest.raises(uoa.ClosedError, match="closed"):
                use()
