# SPDX-License-Identifier: MIT
"""QuicAdapter and the middleware that believes X-Forwarded-For: the order is a security rule.

A balancer of layer 4 passes HTTP through untouched, and with it what a client writes into
X-Forwarded-For. Whoever takes that balancer for a proxy of layer 7 believes the client.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any, Final

import pytest
from hypercorn.middleware import ProxyFixMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

import uoa
import uoa.testing
from tests.frameworks.h3 import client, serving, tell
from tests.frameworks.relay import Relay
from tests.frameworks.test_quic_adapter import App, scope_of
from tests.senders import received_claim
from tests.unit.endpoints import ALICE, BOB, Loop
from uoa.middleware import QuicAdapter

BALANCER: Final = "127.0.0.1"
FORGED: Final = "198.51.100.66"
HEADERS: Final = [(b"x-forwarded-for", FORGED.encode()), (b"forwarded", b"for=" + FORGED.encode())]

# Their types know their servers' own scopes.
ProxyHeaders: Any = ProxyHeadersMiddleware
ProxyFix: Any = ProxyFixMiddleware


def seen_by(loop: Loop, app: Any) -> list[Any]:
    """Return the client that an application on hypercorn sees when one forges its headers."""
    seen = []

    async def main() -> None:
        async with serving(app) as at:
            with Relay(at) as relay:
                relay.claim = ALICE
                async with client(relay.address) as connection:
                    seen.append((await connection.request(headers=HEADERS)).json)

    loop.run(main)
    found: list[Any] = seen[0]["client"]
    assert seen[0]["current"] == [*ALICE]
    return found


@pytest.mark.parametrize("trusted", [BALANCER, [BALANCER, "10.0.0.0/8"]])
def test_uoa_first(loop: Loop, trusted: Any) -> None:
    """With uoa outermost a client's own header is ignored, even with the balancer trusted."""
    app = QuicAdapter(ProxyHeaders(tell, trusted_hosts=trusted))
    assert seen_by(loop, app) == [*ALICE]


def test_uoa_second_is_wrong() -> None:
    """In the wrong order, on a server that shows the balancer, the client's header is believed."""
    app = App()
    scope = scope_of((BALANCER, 40001), headers=HEADERS)
    resolver = uoa.Resolver([BALANCER], "cmsg")
    claim = received_claim(ALICE, scope["client"])
    resolver.resolve(scope["client"], b"x", [claim], local=scope["server"])
    nothing: Any = None

    wrong = ProxyHeaders(QuicAdapter(app, resolver), trusted_hosts=BALANCER)
    asyncio.run(wrong(copy.deepcopy(scope), nothing, nothing))
    assert app.scope["client"][0] == FORGED

    right = QuicAdapter(ProxyHeaders(app, trusted_hosts=BALANCER), resolver)
    asyncio.run(right(copy.deepcopy(scope), nothing, nothing))
    assert app.scope["client"] == ALICE


def test_a_proxy_between_is_still_believed() -> None:
    """A proxy of layer 7 is trusted by the header middleware, as the client that uoa shows."""
    app = App()
    proxy = uoa.testing.addr("10.9.9.9", 1234)
    nothing: Any = None
    adapter = QuicAdapter(ProxyHeaders(app, trusted_hosts="10.9.9.9"))
    asyncio.run(adapter(scope_of(proxy, headers=HEADERS), nothing, nothing))

    assert app.scope["client"][0] == FORGED
    assert app.current is proxy.client


class TestProxyFix:
    """hypercorn's middleware has no list of hosts: it believes anybody."""

    @pytest.mark.parametrize("mode", ["legacy", "modern"])
    def test_it_believes_the_client(self, loop: Loop, mode: str) -> None:
        """Even behind uoa: behind a balancer of layer 4 it needs `emit_headers`."""
        assert seen_by(loop, QuicAdapter(ProxyFix(tell, mode=mode)))[0] == FORGED

    def test_emit_headers_takes_the_clients_away(self, loop: Loop) -> None:
        """With `emit_headers` it reads what uoa wrote: the client."""
        app = QuicAdapter(ProxyFix(tell, mode="legacy"), emit_headers=True)
        assert seen_by(loop, app) == [ALICE[0], 0]

    def test_the_forwarded_header_is_taken_away_too(self, loop: Loop) -> None:
        """Its `modern` mode does not read quoted addresses, but what it reads is uoa's."""
        app = QuicAdapter(ProxyFix(tell, mode="modern"), emit_headers=True)
        assert seen_by(loop, app)[0] == '"{}:{}"'.format(*ALICE)

    def test_copies_keep_the_client(self) -> None:
        """It copies the scope, deeply; without a header in it the client is still an Addr."""
        app = App()
        nothing: Any = None
        addr = uoa.testing.addr(*BOB)
        asyncio.run(QuicAdapter(ProxyFix(app))(scope_of(addr), nothing, nothing))

        assert app.scope["client"] == BOB
        assert app.scope["client"].client == addr.client


def test_uvicorns_with_everybody_trusted(loop: Loop) -> None:
    """`trusted_hosts="*"` believes anybody too, and `emit_headers` helps there as well."""
    assert seen_by(loop, QuicAdapter(ProxyHeaders(tell, trusted_hosts="*")))[0] == FORGED
    app = QuicAdapter(ProxyHeaders(tell, trusted_hosts="*"), emit_headers=True)
    assert seen_by(loop, app)[0] == ALICE[0]
