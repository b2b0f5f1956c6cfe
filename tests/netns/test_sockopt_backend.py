# SPDX-License-Identifier: MIT
"""The asking half of the backend sockopt: when the kernel is asked, and what is made of it.

The kernel answers from a table that the tests fill (tests/sockopt). The clock of
resolve() and lookup() is a variable, that of endpoints is the real one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

import uoa
import uoa.asyncio
from tests.clock import Clock
from tests.senders import Address, received_claim, udp_socket
from tests.sockopt.kernel_table import KernelTable

PEER: Final = ("10.0.0.5", 4000)
LOCAL: Final = ("10.0.1.9", 5300)
ALICE: Final = ("203.0.113.7", 5000)
BOB: Final = ("2001:db8::8", 5000)
TRUST: Final = "10.0.0.0/24,fd00::/64"

pytestmark = pytest.mark.netns("10.0.0.5", "10.0.1.9", "fd00::5")


@dataclass
class Asking:
    """A resolver that asks, and the kernel's table."""

    resolver: uoa.Resolver
    table: KernelTable
    asker: Any
    clock: Clock
    _counted: int = 0

    def client(
        self,
        *,
        option: bool = False,
        peer: tuple[Any, ...] = PEER,
        local: Address | None = LOCAL,
    ) -> uoa.Client:
        """Return what the resolver makes of a datagram."""
        control = [received_claim(BOB, peer)] if option else []
        return self.resolver.resolve(peer, b"", control, local=local, asker=self.asker)[0]

    def who(self, **arguments: Any) -> Address | None:
        """Return the client of a datagram, None if it is unknown."""
        client = self.client(**arguments)
        return (client.host, client.port) if client.resolved else None

    def asked(self) -> int:
        """Return how often the kernel was asked since the last call."""
        before, self._counted = self._counted, self.resolver.stats()["asked"]
        return self._counted - before


@contextmanager
def asking(
    *requests: int, family: int = socket.AF_INET, trust: str = TRUST, **arguments: Any
) -> Iterator[Asking]:
    """Start a kernel that answers some requests, all by default, and a resolver that asks."""
    with pytest.MonkeyPatch.context() as monkeypatch, KernelTable() as table:
        clock = Clock()
        clock.patch(monkeypatch)
        if requests:
            table.answers(*requests)
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            resolver = uoa.Resolver(trust, "sockopt", **arguments)
            yield Asking(resolver, table, resolver.meet(sock, reads=False), clock)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("peer", [PEER, ("fd00::5", 4000)])
@pytest.mark.parametrize("client", [ALICE, BOB])
def test_2051_tells_all(family: int, peer: Address, client: Address) -> None:
    """The newer request names client, VIP, dialect and age, for each pair of families."""
    vip = ("198.51.100.80", 443)
    with asking(family=family) as here:
        here.clock.now = 100_000.0
        here.table.set(peer, LOCAL, client, vip=vip, dialect="bd31")
        found = here.client(peer=peer)

        assert ((found.host, found.port), found.source) == (client, "sockopt")
        assert (found.vip, found.dialect, found.vni) == (vip, "bd31", None)
        assert found.age is not None
        assert 0 <= found.age < 20
        assert here.table.asked() == {2048: 0, 2051: 2}  # the probe, and the question


@pytest.mark.parametrize("peer", [PEER, ("fd00::5", 4000)])
@pytest.mark.parametrize("client", [ALICE, BOB])
def test_2048_is_asked_where_nobody_knows_2051(peer: Address, client: Address) -> None:
    """With an older module the client is known, and what the request cannot tell is not."""
    with asking(2048) as here:
        here.table.set(peer, LOCAL, client, vip=("198.51.100.80", 443), dialect="bd31")
        found = here.client(peer=peer)

        assert ((found.host, found.port), found.source) == (client, "sockopt")
        assert (found.vip, found.dialect, found.age) == (None, None, 0.0)
        assert here.table.asked()[2048] == 2


def test_the_age_is_the_kernels() -> None:
    """A claim that the kernel learned a while ago is that old, and counted from then on."""
    with asking() as here:
        here.clock.now = 100_000.0
        here.table.set(PEER, LOCAL, ALICE, age=30.0)
        age = here.client().age
        assert age is not None
        assert 30 <= age < 50
        here.clock.now += 0.5

        assert here.client().age == pytest.approx(age + 0.5)


def test_an_age_that_is_not_told_counts_from_the_first_answer() -> None:
    """Request 2048 has no age: the same client grows older, another one is new."""
    with asking(2048) as here:
        here.table.set(PEER, LOCAL, ALICE)
        ages = []
        for client in (ALICE, ALICE, ALICE, BOB, BOB):
            here.table.set(PEER, LOCAL, client)
            ages.append(here.client().age)
            here.clock.now += 2

        assert ages == [0.0, 2.0, 4.0, 0.0, 2.0]


class TestAskingAgain:
    """Once a second, and after a miss sooner."""

    def test_a_known_flow_is_asked_for_once_a_second(self) -> None:
        """A thousand datagrams within a second put one question."""
        with asking() as here:
            here.table.set(PEER, LOCAL, ALICE)
            for _ in range(1000):
                assert here.who() == ALICE
                here.clock.now += 0.0009
            assert here.asked() == 1
            here.clock.now += 0.2

            assert here.who() == ALICE
            assert here.asked() == 1

    def test_a_miss_is_asked_for_again_after_50_ms(self) -> None:
        """A datagram that overtook its claim is unknown, and its flow is known soon after."""
        with asking() as here:
            assert here.who() is None
            here.table.set(PEER, LOCAL, ALICE)
            here.clock.now += 0.049
            assert here.who() is None
            assert here.asked() == 1
            here.clock.now += 0.002

            assert here.who() == ALICE
            assert here.asked() == 1

    def test_a_datagram_with_an_option_is_asked_for_at_once(self) -> None:
        """An option may be news: it is not read, and the kernel tells what it made of it."""
        with asking() as here:
            here.table.set(PEER, LOCAL, ALICE)
            assert here.who() == ALICE
            here.table.set(PEER, LOCAL, BOB)
            assert here.who() == ALICE

            assert here.who(option=True) == BOB
            assert here.resolver.stats()["changed"] == 1
            here.table.set(PEER, LOCAL, ALICE)
            assert here.who(option=True) == ALICE

    def test_who_is_not_trusted_is_not_asked_for(self) -> None:
        """A direct datagram puts no question, with an option or without."""
        with asking(trust="192.0.2.1") as here:
            here.table.set(PEER, LOCAL, ALICE)

            assert here.client().direct
            assert here.client(option=True).direct
            assert here.asked() == 0
            assert here.resolver.stats()["flows"] == 0


class TestMisses:
    """The kernel's table is not ours: it forgets, and may be gone."""

    def test_a_known_flow_outlives_the_kernels_entry(self) -> None:
        """A flow whose datagrams keep coming stays known, when the kernel has forgotten it."""
        with asking(ttl=10) as here:
            here.table.set(PEER, LOCAL, ALICE)
            assert here.who() == ALICE
            here.table.delete(PEER, LOCAL)
            for _ in range(100):
                here.clock.now += 5
                assert here.who() == ALICE

    def test_a_silent_flow_is_forgotten(self) -> None:
        """After ttl without a datagram the kernel's answer counts again."""
        with asking(ttl=10) as here:
            here.table.set(PEER, LOCAL, ALICE)
            assert here.who() == ALICE
            here.table.delete(PEER, LOCAL)
            here.clock.now += 11

            assert here.who() is None

    def test_no_flow_outlives_max_age(self) -> None:
        """A claim older than max_age is none, also when the kernel still has it."""
        with asking(max_age=60.0) as here:
            here.clock.now = 100_000.0
            here.table.set(PEER, LOCAL, ALICE, age=50.0)
            assert here.who() == ALICE
            here.table.set(PEER, LOCAL, ALICE, age=80.0)
            here.clock.now += 30

            assert here.who() is None
            assert here.resolver.stats()["expired"] == 1

    def test_a_kernel_that_stops_answering(self) -> None:
        """When the program is gone known flows go on, and new ones are unknown."""
        with asking() as here:
            here.table.set(PEER, LOCAL, ALICE)
            assert here.who() == ALICE
            here.table.answers()
            here.clock.now += 5

            assert here.who() == ALICE
            assert here.who(peer=("10.0.0.5", 4001)) is None

    def test_misses_have_a_ceiling(self) -> None:
        """Peers that the kernel does not know take no more room than others."""
        with asking(max_flows=50) as here:
            for port in range(1, 1001):
                assert here.who(peer=("10.0.0.5", port)) is None

            assert here.resolver.stats()["flows"] == 50
            assert here.resolver.stats()["learned"] == 0


class TestLocalAddress:
    """A question names the local address if it is known."""

    def test_several_clients_are_no_client(self) -> None:
        """Without the local address, a peer and port that stand for two clients are unknown."""
        with asking() as here:
            here.table.set(PEER, LOCAL, ALICE)
            assert here.who(local=("::", LOCAL[1])) == ALICE
            here.table.set(PEER, ("10.0.1.10", LOCAL[1]), BOB, several=True)
            here.clock.now += 1

            assert here.who(local=("::", LOCAL[1])) is None
            assert here.who() == ALICE
            assert here.resolver.stats()["ambiguous"] == 1

    def test_one_known_client_of_several_is_none_either(self) -> None:
        """lookup() without the local host believes the kernel that there are others."""
        with asking() as here, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            here.table.set(PEER, LOCAL, ALICE)
            assert here.who() == ALICE
            here.table.set(PEER, ("10.0.1.10", LOCAL[1]), BOB, several=True)

            for _ in range(2):  # asked, and not asked again so soon
                assert here.resolver.lookup(PEER, ("::", LOCAL[1]), sock) is None
            assert here.resolver.lookup(PEER, LOCAL, sock) is not None
            assert here.resolver.stats()["ambiguous"] == 1

    @pytest.mark.parametrize("bound", [LOCAL[0], "0.0.0.0"])
    def test_a_bound_socket_is_the_local_address(self, bound: str) -> None:
        """lookup() with the server's socket needs no other word of where it is bound."""
        with asking() as here, udp_socket(bound, LOCAL[1]) as sock:
            here.table.set(PEER, LOCAL, ALICE)
            here.table.set(PEER, (LOCAL[0], LOCAL[1] + 1), BOB)
            found = here.resolver.lookup(PEER, sock=sock)

            assert found is not None
            assert (found.host, found.port) == ALICE

    def test_lookup_asks_too(self) -> None:
        """lookup() with a socket puts a question, with the table's own rules of time."""
        with asking() as here, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            assert here.resolver.lookup(PEER, LOCAL) is None
            here.table.set(PEER, LOCAL, ALICE)
            found = here.resolver.lookup(PEER, LOCAL, sock)

            assert found is not None
            assert (found.host, found.port, found.source) == (*ALICE, "sockopt")
            assert here.resolver.lookup(("192.0.2.1", 1), LOCAL, sock) is None


@pytest.mark.parametrize("client", [("0.0.0.0", 1), ("224.0.0.1", 1), ("203.0.113.7", 0)])
def test_an_impossible_client_is_none(client: Address) -> None:
    """A kernel that judges less is judged: what can be no client is counted and unknown."""
    with asking() as here:
        here.table.set(PEER, LOCAL, client)

        assert here.who() is None
        assert here.resolver.stats()["invalid_addr"] == 1


class TestStart:
    """What cannot work is refused when the resolver meets the socket."""

    def test_a_kernel_that_does_not_answer_is_an_error(self) -> None:
        """Without module and program the error says what to do, at start."""
        with udp_socket("10.0.1.9") as sock:
            resolver = uoa.Resolver(TRUST, "sockopt")

            with pytest.raises(uoa.BackendError, match="load a module or a program"):
                resolver.meet(sock, reads=True)

    def test_auto_takes_the_kernel_where_it_must(self) -> None:
        """On a transport of others, and for opp, auto asks the kernel; it decides once."""
        with KernelTable(), udp_socket("10.0.1.9") as sock:
            for dialects, reads in (("ipo", False), ("opp", True)):
                resolver = uoa.Resolver(TRUST, dialects=dialects)
                resolver.meet(sock, reads=reads)

                assert resolver.backends == ("sockopt",)
            reading = uoa.Resolver(TRUST)
            reading.meet(sock, reads=True)
            assert reading.backends == ("cmsg",)
            with pytest.raises(uoa.ConfigurationError, match="cmsg"):
                reading.meet(sock, reads=False)

    def test_auto_says_what_it_tried(self) -> None:
        """Where nothing works the error lists every backend and its reason."""
        with udp_socket("10.0.1.9") as sock:
            resolver = uoa.Resolver(TRUST)
            with pytest.raises(uoa.BackendError) as caught:
                resolver.meet(sock, reads=False)

        for part in ("proxy: dialects", "cmsg: needs a socket", "sockopt: nobody answers"):
            assert part in str(caught.value)

    def test_an_endpoint_refuses_at_start(self) -> None:
        """create_datagram_endpoint() raises, and leaves no socket behind."""

        async def main() -> None:
            with pytest.raises(uoa.BackendError, match="nobody answers"):
                await uoa.asyncio.create_datagram_endpoint(
                    asyncio.DatagramProtocol,
                    ("10.0.1.9", 0),
                    resolver=uoa.Resolver(TRUST, "sockopt"),
                )

        asyncio.run(main())
