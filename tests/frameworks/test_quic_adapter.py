# SPDX-License-Identifier: MIT
"""QuicAdapter by itself: scopes go in, and what the application gets is compared.

On a server it is tested in test_hypercorn.py, with other middleware in
test_quic_adapter_order.py.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
from typing import Any, Final

import pytest

import uoa
import uoa.testing
from tests.frameworks.h3 import Scope
from tests.senders import Address, received_claim, udp_socket
from tests.sockopt.kernel_table import KernelTable
from uoa.middleware import QuicAdapter

PEER: Final = ("10.0.0.5", 40001)
SERVER: Final = ("10.0.1.9", 443)
ALICE: Final = ("203.0.113.7", 5555)
BOB: Final = ("2001:db8::1", 4711)
TRUST: Final = "10.0.0.0/24,fd00::/64"


class App:
    """Remembers what it is called with, and who the client was then."""

    def __init__(self) -> None:
        self.scope: Any = None
        self.current: uoa.Client | None = None
        self.calls = 0
        self.sent: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Remember."""
        self.calls += 1
        self.scope, self.current = scope, uoa.current()
        self.arguments = receive, send


def scope_of(client: Any, **more: Any) -> Scope:
    """Return a scope as HTTP/3 servers make it."""
    return {"type": "http", "http_version": "3", "client": client, "server": SERVER,
            "headers": [(b"host", b"uoa.test")], "extensions": {"tls": {}},
            "state": {"database": 1}, **more}  # fmt: skip


def run(scope: Scope, resolver: uoa.Resolver | None = None, **arguments: Any) -> App:
    """Call the adapter with a scope; return the application behind it."""
    app = App()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody reads")

    before = copy.deepcopy(scope)
    asyncio.run(QuicAdapter(app, resolver, **arguments)(scope, receive, send))
    assert scope == before, "it changed the scope of others"
    assert uoa.current() is None
    app.sent = sent
    return app


def known(resolver: uoa.Resolver, client: Address, peer: Address = PEER) -> None:
    """Let an endpoint of this process have seen a flow."""
    resolver.resolve(peer, b"x", [received_claim(client, peer)], local=SERVER)


def facts(peer: Address, client: Address, source: str) -> dict[str, Any]:
    """Return what the extension says."""
    is_resolved = source not in ("direct", "none")
    return {
        "peer": [*peer], "client": [*client], "source": source, "resolved": is_resolved,
    }  # fmt: skip


class TestPair:
    """`scope["client"]` has two items, or is None; without uoa's server nothing else happens."""

    @pytest.mark.parametrize("kind", ["http", "websocket", "webtransport"])
    @pytest.mark.parametrize(
        ("client", "expected"),
        [
            (("203.0.113.7", 5555), ("203.0.113.7", 5555)),
            (["203.0.113.7", 5555], ("203.0.113.7", 5555)),
            (("2001:db8::1", 4711, 0, 0), ("2001:db8::1", 4711)),
            (("fe80::1", 4711, 0, 2), ("fe80::1%2", 4711)),
            (("::ffff:203.0.113.7", 5555, 0, 0), ("203.0.113.7", 5555)),
            (("::ffff:203.0.113.7", 5555), ("203.0.113.7", 5555)),
            (("testclient", 50000), ("testclient", 50000)),
            (("/run/server.sock", None), ("/run/server.sock", None)),
            (("203.0.113.7", 99999), ("203.0.113.7", 99999)),
            (("",), ("",)),
            (None, None),
        ],
    )
    def test_two_items(self, kind: str, client: Any, expected: Any) -> None:
        """Whatever the server says, in a tuple of two; the rest of the scope stays."""
        scope = scope_of(client, type=kind)
        app = run(scope)

        assert app.scope == {**scope, "client": expected}
        assert app.current is None

    def test_no_client_at_all(self) -> None:
        """A server need not name a client."""
        scope = scope_of(None)
        del scope["client"]

        assert run(scope).scope["client"] is None

    @pytest.mark.parametrize("kind", ["lifespan", "something.else"])
    def test_other_scopes_pass_untouched(self, kind: str) -> None:
        """What is no request is the application's own scope, the very object."""
        scope = {"type": kind, "state": {}}
        app = run(scope, uoa.Resolver(TRUST), emit_headers=True, emit_state=True)

        assert app.scope is scope

    def test_a_tcp_connection_is_never_looked_up(self) -> None:
        """HTTP/1 and 2 have a peer with the same address, and another port space."""
        resolver = uoa.Resolver(TRUST)
        known(resolver, ALICE)
        for version in ("1.0", "1.1", "2", None):
            scope = scope_of(PEER, http_version=version)
            assert run(scope, resolver).scope == scope
        assert run(scope_of(PEER), resolver).scope["client"] == ALICE


class TestAddr:
    """What uoa's own endpoints put into the scope."""

    @pytest.mark.parametrize("view", ["client", "peer"])
    @pytest.mark.parametrize("kind", ["http", "websocket", "webtransport"])
    @pytest.mark.parametrize(
        ("client", "peer", "source"),
        [
            (ALICE, PEER, "proxy"),
            (BOB, PEER, "cmsg"),
            (ALICE, ("fd00::5", 40001), "sockopt"),
            (ALICE, ALICE, "direct"),
            (PEER, PEER, "none"),
        ],
    )
    def test_facts(self, view: Any, kind: str, client: Address, peer: Address, source: str) -> None:
        """The scope shows the client, with the facts beside it; current() knows it as well."""
        addr = uoa.testing.addr(*client, peer=peer, source=source, view=view)
        scope = scope_of(addr, type=kind)
        app = run(scope)

        assert app.scope == {
            **scope, "client": client,
            "extensions": {"tls": {}, "uoa": facts(peer, client, source)},
        }  # fmt: skip
        assert isinstance(app.scope["client"], uoa.Addr)
        assert app.scope["client"].client is app.current is addr.client

    def test_containers_are_new(self) -> None:
        """No dictionary that came in is the one that goes on, if anything was written to it."""
        scope = scope_of(uoa.testing.addr())
        app = run(scope, emit_state=True, emit_headers=True)

        assert app.scope is not scope
        for name in ("extensions", "state", "headers"):
            assert app.scope[name] is not scope[name]

    def test_a_scope_without_extensions(self) -> None:
        """A server need not have extensions, nor a state."""
        scope = scope_of(uoa.testing.addr(), extensions=None)
        del scope["state"]

        app = run(scope, emit_state=True)
        assert [*app.scope["extensions"]] == ["uoa"]
        assert [*app.scope["state"]] == ["real_client"]

    @pytest.mark.parametrize("twin", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
    def test_copies_keep_the_client(self, twin: Any) -> None:
        """Middleware that copies the scope does not lose it."""
        app = run(scope_of(uoa.testing.addr()))
        copied = twin(app.scope)

        assert copied == app.scope
        assert copied["client"].client == app.current

    def test_state(self) -> None:
        """`emit_state` adds the client to the state; without it nothing is added."""
        scope = scope_of(uoa.testing.addr())
        app = run(scope, emit_state=True)

        assert app.scope["state"] == {"database": 1, "real_client": app.current}
        assert run(scope).scope["state"] == {"database": 1}

    def test_the_client_does_not_leak(self) -> None:
        """Two requests of one task, and an application that fails: current() is right."""

        async def fail(scope: Any, receive: Any, send: Any) -> None:
            assert uoa.current() is not None
            raise RuntimeError("application")

        async def main() -> None:
            nothing: Any = None
            with pytest.raises(RuntimeError, match="application"):
                await QuicAdapter(fail)(scope_of(uoa.testing.addr()), nothing, nothing)
            assert uoa.current() is None
            app = App()
            await QuicAdapter(app)(scope_of(PEER), nothing, nothing)
            assert app.current is None

        asyncio.run(main())

    def test_tasks_and_threads_know_it(self) -> None:
        """What the application starts knows the client, after the request too."""
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def later() -> None:
                await started.wait()
                seen.append(uoa.current())

            tasks.append(asyncio.create_task(later()))
            seen.append(await asyncio.to_thread(uoa.current))

        async def main() -> None:
            nothing: Any = None
            await QuicAdapter(app)(scope_of(addr), nothing, nothing)
            assert uoa.current() is None
            started.set()
            await tasks[0]

        tasks: list[asyncio.Task[None]] = []
        addr, started = uoa.testing.addr(), asyncio.Event()
        asyncio.run(main())
        assert seen == [addr.client, addr.client]


class TestHeaders:
    """`emit_headers`: what the client wrote is gone, what is known is there, once."""

    FORGED: Final = [
        (b"X-Forwarded-For", b"198.51.100.66"),
        (b"x-forwarded-for", b"198.51.100.67, 198.51.100.68"),
        (b"x-forwarded-proto", b"gopher"),
        (b"x-Forwarded-anything", b"x"),
        (b"x_forwarded_for", b"198.51.100.69"),
        (b"forwarded", b"for=198.51.100.70"),
        (b"FORWARDED", b"for=198.51.100.71"),
    ]
    KEPT: Final = [(b"host", b"uoa.test"), (b"x-forward", b"kept"), (b"forwarded-for", b"kept")]

    def headers(self, client: Any, resolver: uoa.Resolver | None = None) -> list[Any]:
        """Return what is there besides what must be kept."""
        scope = scope_of(client, headers=[*self.FORGED, *self.KEPT, *self.FORGED])
        headers: list[Any] = run(scope, resolver, emit_headers=True).scope["headers"]
        assert headers[: len(self.KEPT)] == self.KEPT
        return headers[len(self.KEPT) :]

    @pytest.mark.parametrize("source", ["proxy", "cmsg", "direct"])
    @pytest.mark.parametrize(
        ("client", "host", "node"),
        [
            (ALICE, b"203.0.113.7", b'for="203.0.113.7:5555"'),
            (BOB, b"2001:db8::1", b'for="[2001:db8::1]:4711"'),
            (("fe80::1%2", 9), b"fe80::1", b'for="[fe80::1]:9"'),
        ],
    )
    def test_a_client(self, source: str, client: Address, host: bytes, node: bytes) -> None:
        """A client is named in each of the three, as RFC 7239 quotes it."""
        port = str(client[1]).encode()
        assert self.headers(uoa.testing.addr(*client, source=source)) == [
            (b"x-forwarded-for", host), (b"x-forwarded-port", port), (b"forwarded", node),
        ]  # fmt: skip

    def test_an_unknown_client(self) -> None:
        """The balancer is not passed off as a client."""
        assert self.headers(uoa.testing.addr(source="none")) == [(b"forwarded", b"for=unknown")]

    def test_nothing_is_known(self) -> None:
        """Without uoa's server it is what the server says, which may be nothing."""
        assert self.headers((*BOB, 0, 0)) == [
            (b"x-forwarded-for", b"2001:db8::1"), (b"x-forwarded-port", b"4711"),
            (b"forwarded", b'for="[2001:db8::1]:4711"'),
        ]  # fmt: skip
        for nobody in (None, ("testclient", 50000)):
            assert self.headers(nobody) == [(b"forwarded", b"for=unknown")]

    def test_it_is_asked_for(self) -> None:
        """Without `emit_headers` headers are the client's, and stay."""
        scope = scope_of(uoa.testing.addr(), headers=self.FORGED)
        assert run(scope).scope["headers"] == self.FORGED


class TestLookUp:
    """On servers of others, the table of an endpoint in this process is asked."""

    def test_a_flow_that_an_endpoint_knows(self) -> None:
        """The client of a trusted peer comes from the resolver's table."""
        resolver = uoa.Resolver(TRUST)
        known(resolver, BOB)
        app = run(scope_of((*PEER, 0, 0)), resolver)

        assert app.scope["client"] == BOB
        assert app.scope["extensions"]["uoa"] == facts(PEER, BOB, "cmsg")
        assert app.current is app.scope["client"].client

    @pytest.mark.parametrize("server", [("0.0.0.0", 443), ("::", 443), None, ("/sock", None)])
    def test_the_local_address_need_not_be_known(self, server: Any) -> None:
        """A server that is bound to all addresses finds the flow all the same, unless two match."""
        resolver = uoa.Resolver(TRUST)
        known(resolver, ALICE)
        assert run(scope_of(PEER, server=server), resolver).scope["client"] == ALICE
        resolver.resolve(PEER, b"x", [received_claim(BOB, PEER)], local=("10.0.1.10", 443))
        app = run(scope_of(PEER, server=server), resolver)
        assert app.scope["extensions"]["uoa"] == facts(PEER, PEER, "none")
        assert resolver.stats()["ambiguous"] == 1

    def test_who_is_not_trusted_is_direct(self) -> None:
        """A peer that is no balancer is the client, whatever the table says."""
        resolver = uoa.Resolver(TRUST)
        known(resolver, BOB)
        resolver.set_trust("10.0.9.0/24")
        app = run(scope_of(PEER), resolver)

        assert app.scope["extensions"]["uoa"] == facts(PEER, PEER, "direct")

    def test_a_miss_is_unknown(self) -> None:
        """A trusted peer without a flow is an unknown client, and said to be one."""
        app = run(scope_of(PEER), uoa.Resolver(TRUST))

        assert app.scope["client"] == PEER
        assert app.scope["extensions"]["uoa"] == facts(PEER, PEER, "none")

    @pytest.mark.parametrize("client", [None, ("testclient", 1)])
    def test_nobody_to_look_up(self, client: Any) -> None:
        """A client that is no address is left as it is."""
        assert "uoa" not in run(scope_of(client), uoa.Resolver(TRUST)).scope["extensions"]

    def test_missing_drop(self) -> None:
        """The application does not see an unknown client's request: 403, or a close with 1008."""
        resolver = uoa.Resolver(TRUST, missing="drop")
        app = run(scope_of(PEER), resolver)
        assert app.calls == 0
        assert app.sent == [
            {"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]},
            {"type": "http.response.body", "body": b""},
        ]
        for kind in ("websocket", "webtransport"):
            app = run(scope_of(PEER, type=kind), resolver)
            assert app.calls == 0
            assert app.sent == [{"type": f"{kind}.close", "code": 1008}]
        assert resolver.stats()["dropped"] == 3

    def test_missing_raise(self) -> None:
        """With missing="raise" it is an error that names the peer."""
        resolver = uoa.Resolver(TRUST, missing="raise")
        with pytest.raises(uoa.UnknownClientError) as caught:
            run(scope_of(PEER), resolver)

        assert caught.value.peer == PEER
        assert resolver.stats()["dropped"] == 1

    @pytest.mark.parametrize("missing", ["drop", "raise"])
    def test_missing_is_about_unknown_clients(self, missing: Any) -> None:
        """Known and direct clients pass, TCP does, and what an endpoint has let through."""
        resolver = uoa.Resolver(TRUST, missing=missing)
        known(resolver, ALICE)
        for scope in (
            scope_of(PEER),
            scope_of(("192.0.2.9", 1)),
            scope_of(("10.0.0.6", 1), http_version="2"),
            scope_of(uoa.testing.addr(source="none")),
        ):
            assert run(scope, resolver).calls == 1
        assert resolver.stats()["dropped"] == 0

    @pytest.mark.parametrize("backend", ["cmsg", "proxy"])
    def test_backends_that_read_datagrams(
        self, backend: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What an endpoint reads is looked up in its table, and the kernel is not asked."""
        with caplog.at_level(logging.WARNING, "uoa"):
            run(scope_of(PEER), uoa.Resolver(TRUST, backend))
        assert caplog.records == []


@pytest.mark.netns("10.0.0.5", "10.0.1.9", "fd00::5")
class TestKernel:
    """Where the kernel keeps the table, it is asked through a socket of the adapter's."""

    @pytest.mark.parametrize("backend", ["sockopt", "auto"])
    @pytest.mark.parametrize("server", [SERVER, ("0.0.0.0", 443)])
    @pytest.mark.parametrize("peer", [PEER, ("fd00::5", 40001)])
    def test_the_kernel_is_asked(self, backend: str, server: Any, peer: Address) -> None:
        """A request shows the client that the kernel knows, with `auto` too."""
        with KernelTable() as table:
            resolver = uoa.Resolver(TRUST, backend)
            table.set(peer, SERVER, BOB)
            app = run(scope_of(peer, server=server), resolver)

            assert resolver.backends == ("sockopt",)
            assert app.scope["extensions"]["uoa"] == facts(peer, BOB, "sockopt")

    def test_strangers_are_not_asked_about(self) -> None:
        """Who is not trusted, or comes by TCP, puts no question."""
        with KernelTable() as table:
            resolver = uoa.Resolver(TRUST, "sockopt")
            table.set(("192.0.2.9", 1), SERVER, BOB)
            before = resolver.stats()["asked"]
            run(scope_of(("192.0.2.9", 1)), resolver)
            run(scope_of(PEER, http_version="2"), resolver)
            assert resolver.stats()["asked"] == before

    def test_a_kernel_that_does_not_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        """`sockopt` is refused at construction; `auto` goes on with the table, and says so."""
        with pytest.raises(uoa.BackendError, match="nobody answers"):
            QuicAdapter(App(), uoa.Resolver(TRUST, "sockopt"))
        with pytest.raises(uoa.BackendError, match="nothing works"):
            QuicAdapter(App(), uoa.Resolver(TRUST, dialects="opp"))
        resolver = uoa.Resolver(TRUST)
        with caplog.at_level(logging.WARNING, "uoa"):
            adapter = QuicAdapter(App(), resolver)
        [record] = caplog.records
        assert "only where an endpoint of this process has the same resolver" in record.message
        known(resolver, ALICE)
        nothing: Any = None
        for _ in range(3):
            asyncio.run(adapter(scope_of(PEER), nothing, nothing))
        assert len(caplog.records) == 1
        app: Any = adapter.app
        assert app.scope["client"] == ALICE

    def test_a_kernel_that_stops_answering(self, caplog: pytest.LogCaptureFixture) -> None:
        """When the program is gone clients are unknown, which is said once; requests go on."""
        with KernelTable() as table:
            table.set(PEER, SERVER, ALICE)
            app = App()
            adapter = QuicAdapter(app, uoa.Resolver(TRUST, "sockopt"))
            table.answers()
            nothing: Any = None
            for _ in range(3):
                asyncio.run(adapter(scope_of(PEER), nothing, nothing))
                assert app.scope["extensions"]["uoa"] == facts(PEER, PEER, "none")
            assert len(caplog.records) == 1

    def test_the_socket_is_closed_with_the_adapter(self) -> None:
        """An adapter that nobody has any more has no socket open."""
        with KernelTable(), udp_socket("10.0.1.9"):
            adapter = QuicAdapter(App(), uoa.Resolver(TRUST, "sockopt"))
            sock = adapter._sock
            assert sock is not None
            assert sock.fileno() >= 0
            del adapter
            gc.collect()
            assert sock.fileno() == -1
