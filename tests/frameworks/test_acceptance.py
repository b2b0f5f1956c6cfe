# SPDX-License-Identifier: MIT
"""What each adapter must get right, with every backend that its transport allows."""

from __future__ import annotations

import pytest

import uoa
from tests.frameworks.servers import ADAPTERS
from tests.frameworks.world import REBUILDS, Adapter, line, world
from tests.scenarios.hosts import ADDRESSES, BACKENDS, PAIRS, Backend
from tests.senders import Address
from uoa.cli._hostport import text_of

pytestmark = pytest.mark.netns(*ADDRESSES)

CELLS = [(adapter, backend) for adapter in ADAPTERS for backend in BACKENDS]
ALLOWED = [(a, b) for a, b in CELLS if b in ADAPTERS[a].backends]
REFUSED = [(a, b) for a, b in CELLS if b not in ADAPTERS[a].backends]


def _in(cells: list[tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("adapter", "backend"),
        [(ADAPTERS[adapter], BACKENDS[backend]) for adapter, backend in cells],
        ids=["-".join(cell) for cell in cells],
    )


@_in(REFUSED)
def test_what_cannot_work_is_refused(adapter: Adapter, backend: Backend) -> None:
    """A backend that the transport does not allow is refused at start, with the way out."""
    with (
        pytest.raises(uoa.UOAError, match=r"use uoa\.|\(proxy, sockopt\)"),
        world(adapter, backend),
    ):
        pass


@pytest.mark.parametrize("pair", PAIRS)
@_in(ALLOWED)
def test_client_is_seen_and_balancer_is_answered(
    adapter: Adapter, backend: Backend, pair: str
) -> None:
    """The application reads the client, and the answer arrives at the balancer that asked."""
    with world(adapter, backend, pair) as here:
        for client in here.clients:
            sock = here.flow()
            assert here.talk().ask(sock, client) == line(client, sock, backend.source)


@_in(ALLOWED)
def test_dual_stack(adapter: Adapter, backend: Backend) -> None:
    """On a socket of both families IPv4 balancers and clients are IPv4, never mapped."""
    for pair in ("4to4", "6to6"):
        with world(adapter, backend, pair, bound="::") as here:
            sock = here.flow()
            [client, _] = here.clients
            assert here.talk().ask(sock, client) == line(client, sock, backend.source)


@_in(ALLOWED)
def test_two_clients_never_mix(adapter: Adapter, backend: Backend) -> None:
    """Two clients behind one balancer take turns, a direct one between them: each is itself."""
    with world(adapter, backend) as here:
        direct = here.stranger()
        talks = [
            (here.talk(), here.flow(0), here.clients[0], here.clients[0], backend.source),
            (here.talk(), here.flow(0), here.clients[1], here.clients[1], backend.source),
            (here.talk(), direct, None, direct.getsockname()[:2], "direct"),
        ]
        for turn in range(adapter.turns):
            for talk, sock, claim, client, source in talks[: 3 if turn % 10 == 0 else 2]:
                assert talk.ask(sock, claim) == line(client, sock, source)


@_in(ALLOWED)
def test_replies_follow_a_balancer_that_moves(adapter: Adapter, backend: Backend) -> None:
    """When the balancer changes its port within a conversation, the next answer goes there."""
    with world(adapter, backend) as here:
        [client, _] = here.clients
        talk, old = here.talk(), here.flow()
        assert talk.ask(old, client) == line(client, old, backend.source)
        new = here.flow()
        old.close()
        named = here.running.lines[0].split()[3]
        for _ in range(2):
            answer = talk.ask(new, client)
            if adapter.is_frozen:
                answer = answer.replace(named, text_of(new.getsockname()[:2]))
            assert answer == line(client, new, backend.source)


@pytest.mark.parametrize("how", REBUILDS)
@_in([(a, b) for a, b in ALLOWED if ADAPTERS[a].rebuilds])
def test_rebuilt_addresses_are_answered(adapter: Adapter, backend: Backend, how: str) -> None:
    """An address that was sliced, copied or pickled still leads to the balancer."""
    with world(adapter, backend) as here:
        here.running.rebuild = REBUILDS[how]
        for client in here.clients:
            sock = here.flow()
            assert here.talk().ask(sock, client) == line(client, sock, backend.source)


@_in(ALLOWED)
def test_an_untrusted_sender_is_direct(adapter: Adapter, backend: Backend) -> None:
    """A stranger's claim is counted and not believed, and enters no table."""
    with world(adapter, backend) as here:
        claimed = here.clients[0]
        here.send(here.stranger(), adapter.question(), claimed)
        stranger = here.stranger()
        own = stranger.getsockname()[:2]
        assert here.talk().ask(stranger, None) == line(own, stranger, "direct")
        stats = here.resolver.stats()
        # The kernel's table has no claims of strangers, and without cmsg they are not seen here.
        assert stats["untrusted"] == (backend.source != "sockopt" or "cmsg" in adapter.backends)
        assert (stats["flows"], stats["learned"], stats["found"]) == (0, 0, 0)
        assert not [said for said in here.running.lines if claimed[0] in said]


@pytest.mark.parametrize("missing", ["peer", "drop", "raise"])
@_in(ALLOWED)
def test_missing(adapter: Adapter, backend: Backend, missing: str) -> None:
    """An unknown client is delivered as the peer, or dropped and counted; others are served."""
    with world(adapter, backend, missing=missing) as here:
        talk, sock = here.talk(), here.flow()
        own: Address = sock.getsockname()[:2]
        if missing == "peer":
            assert talk.ask(sock, None) == line(own, sock, "none")
        else:
            here.send(sock, adapter.question(), None)
            stranger = here.stranger()
            # Served behind it: so it has been dropped.
            other = stranger.getsockname()[:2]
            assert here.talk().ask(stranger, None) == line(other, stranger, "direct")
            assert [said for said in here.running.lines if "source=none" in said] == []
            assert here.resolver.stats()["dropped"] == 1
        if missing == "raise":
            complaints = here.running.complaints
            assert len(complaints) <= 1
            assert all(isinstance(error, uoa.UnknownClientError) for error in complaints)
            complaints.clear()
        client, flow = here.clients[0], here.flow()
        assert here.talk().ask(flow, client) == line(client, flow, backend.source)


@_in(ALLOWED)
def test_odd_datagrams(adapter: Adapter, backend: Backend) -> None:
    """Empty, cut short, over-long and senseless datagrams raise nothing, and serving goes on."""
    with world(adapter, backend) as here:
        question = adapter.question()
        header = uoa.wire.build("ppv2", here.clients[0])
        odd = [
            b"",
            header,
            *(header[:at] for at in range(1, len(header), 3)),
            header + header,
            header + question[:3],
            *(question[:at] for at in range(1, len(question), 5)),
            bytes(65507 - 64),
            b"\xff" * 1200,
            b"\xc0\x0c" * 600,
        ]
        for sock, claim in ((here.flow(), here.clients[0]), (here.stranger(), None)):
            for payload in odd:
                here.send(sock, payload, claim)
            while here.receive(sock, 0.0) is not None:
                pass
        client, flow = here.clients[1], here.flow()
        assert here.talk().ask(flow, client) == line(client, flow, backend.source)
        assert here.resolver.stats()["empty"] >= 2
