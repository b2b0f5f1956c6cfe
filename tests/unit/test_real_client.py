# SPDX-License-Identifier: MIT
"""`uoa.real_client`: a handler's parameter `client`, filled in by one rule."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import uoa
import uoa.testing
from tests.senders import send_claim, udp_socket
from tests.unit.endpoints import ALICE, BOB, TRUST, Loop, Recorder, endpoint, receive

ADDR = uoa.testing.addr(*ALICE)
OTHER = uoa.testing.addr(*BOB)
UNKNOWN = uoa.testing.addr(source="none")


class TestFinding:
    """Where the client is found."""

    def test_an_address_among_the_arguments(self) -> None:
        """The first Addr of the call is it, by position or by name, whatever it is called."""

        @uoa.real_client
        def handle(data: bytes, where: Any, client: uoa.Client) -> Any:
            return data, where, client

        with uoa.testing.acting_as(OTHER):
            for result in (handle(b"", ADDR), handle(b"", where=ADDR)):
                assert result == (b"", ADDR, ADDR.client)

    @pytest.mark.parametrize(
        "handler",
        [
            types.SimpleNamespace(client_address=ADDR),
            types.SimpleNamespace(remote=ADDR),
            types.SimpleNamespace(remote=types.SimpleNamespace(sockaddr=ADDR)),
            types.SimpleNamespace(scope={"client": ADDR}),
            types.SimpleNamespace(client_address=("192.0.2.1", 1), remote=None, scope={}),
        ],
    )
    def test_an_argument_that_has_one(self, handler: Any) -> None:
        """Then handlers and requests are asked; then whose datagram it is that is handled."""

        @uoa.real_client
        def resolve(request: object, handler: Any, client: uoa.Client) -> uoa.Client:
            return client

        with uoa.testing.acting_as(ADDR):
            assert resolve(None, handler) is ADDR.client
            assert resolve(OTHER, handler) is OTHER.client

    def test_the_context(self) -> None:
        """Without any argument the current client is it."""

        @uoa.real_client
        def audit(client: uoa.Client) -> uoa.Client:
            return client

        with uoa.testing.acting_as(ADDR):
            assert audit() is ADDR.client

    def test_a_caller_that_knows_is_obeyed(self) -> None:
        """A client given by name wins: for tests of handlers."""

        @uoa.real_client(missing="raise")
        def handle(addr: Any, client: uoa.Client) -> uoa.Client:
            return client

        assert handle(ADDR) is ADDR.client
        assert handle(ADDR, client=OTHER.client) is OTHER.client
        with pytest.raises(uoa.ConfigurationError, match="no parameter"):
            uoa.real_client(handle)

    def test_nobody(self) -> None:
        """Without a client the parameter's default stays, or it is None."""

        @uoa.real_client
        def bare(client: uoa.Client | None) -> Any:
            return client

        @uoa.real_client
        def default(client: Any = "nobody") -> Any:
            return client

        assert bare() is None
        assert default() == "nobody"
        with uoa.testing.acting_as(UNKNOWN):
            assert bare() is default() is UNKNOWN.client

    def test_strict_code_is_not_called_without(self) -> None:
        """With missing="raise" there is no call for nobody, and none for an unknown client."""

        @uoa.real_client(missing="raise")
        def handle(addr: Any, client: uoa.Client) -> uoa.Client:
            return client

        assert handle(ADDR) is ADDR.client
        with pytest.raises(uoa.UnknownClientError, match=r"192\.0\.2\.1 port 40001"):
            handle(UNKNOWN)
        with pytest.raises(uoa.UnknownClientError, match=r"handle\(\): no client"):
            handle(("192.0.2.1", 1))


Text = str  # what annotations name in this module


class TestShapes:
    """What can be decorated."""

    def test_annotations_are_evaluated_where_the_function_is(self) -> None:
        """Frameworks that read annotations need no names of the function's module."""

        @uoa.real_client
        def handle(word: Text, client: uoa.Client) -> None: ...

        @uoa.real_client
        def for_checkers(word: Nowhere, client: uoa.Client) -> None: ...  # type: ignore[name-defined]  # noqa: F821

        assert inspect.signature(handle).parameters["word"].annotation is str
        assert inspect.signature(for_checkers).parameters["word"].annotation == "Nowhere"

    def test_functions_of_any_signature(self) -> None:
        """The parameter may stand anywhere, and be of any kind that takes a value."""

        def first(client: Any, /, addr: Any, *rest: Any) -> Any:
            return client, addr, rest

        def middle(addr: Any, client: Any, word: str = "w") -> Any:
            return client, addr, word

        def last(addr: Any, *rest: Any, client: Any, **options: Any) -> Any:
            return client, addr, rest, options

        def annotated(addr: Any, who: uoa.Client | None) -> Any:
            return who, addr

        known = ADDR.client
        assert uoa.real_client(first)(ADDR, 1, 2) == (known, ADDR, (1, 2))
        assert uoa.real_client(middle)(ADDR) == (known, ADDR, "w")
        assert uoa.real_client(middle)(ADDR, "x") == (known, ADDR, "x")
        assert uoa.real_client(middle)(word="y", addr=ADDR) == (known, ADDR, "y")
        assert uoa.real_client(last)(ADDR, 1, z=2) == (known, ADDR, (1,), {"z": 2})
        assert uoa.real_client(annotated)(ADDR) == (known, ADDR)

    def test_annotations_as_objects(self) -> None:
        """An annotation is recognised whether or not it is a string."""

        def plain(addr, who):  # type: ignore[no-untyped-def]
            return who

        def optional(addr, who):  # type: ignore[no-untyped-def]
            return who

        plain.__annotations__["who"] = uoa.Client
        optional.__annotations__["who"] = uoa.Client | None
        for function in (plain, optional):
            assert uoa.real_client(function)(ADDR) is ADDR.client

    def test_coroutine_functions(self) -> None:
        """A coroutine function stays one."""

        @uoa.real_client
        async def home(request: Any, client: uoa.Client) -> uoa.Client:
            await asyncio.sleep(0)
            return client

        async def main() -> object:
            return await home(types.SimpleNamespace(scope={"client": ADDR}))

        assert inspect.iscoroutinefunction(home)
        assert asyncio.run(main()) is ADDR.client

    def test_methods(self) -> None:
        """Methods of the three kinds work, with the decorators in either order."""

        class Handler:
            client_address = ADDR

            @uoa.real_client
            def own(self, client: uoa.Client) -> uoa.Client:
                return client

            @staticmethod
            @uoa.real_client
            def inner(addr: Any, client: uoa.Client) -> uoa.Client:
                return client

            @uoa.real_client
            @staticmethod
            def outer(addr: Any, client: uoa.Client) -> uoa.Client:
                return client

            @classmethod
            @uoa.real_client
            def below(cls, addr: Any, client: uoa.Client) -> uoa.Client:
                return client

            @uoa.real_client
            @classmethod
            def above(cls, addr: Any, client: uoa.Client) -> uoa.Client:
                return client

        handler: Any = Handler()
        assert handler.own() is ADDR.client
        for method in (handler.inner, handler.outer, handler.below, handler.above):
            assert method(OTHER) is OTHER.client

    def test_callable_objects(self) -> None:
        """Whatever can be called and has a signature will do."""

        def handle(word: str, addr: Any, client: Any) -> Any:
            return word, client

        assert uoa.real_client(functools.partial(handle, "w"))(ADDR) == ("w", ADDR.client)

    def test_the_parameter_is_hidden(self) -> None:
        """Frameworks that read signatures see all parameters but this one."""

        @uoa.real_client
        def handle(request: str, client: uoa.Client, *, word: int = 3) -> str:
            """Do it."""
            return ""

        assert [*inspect.signature(handle).parameters] == ["request", "word"]
        assert (handle.__name__, handle.__doc__) == ("handle", "Do it.")

    @pytest.mark.parametrize(
        "target",
        [
            lambda data: data,
            lambda *client: client,
            lambda **client: client,
            5,
            object,
            staticmethod(lambda data: data),
        ],
    )
    def test_what_never_finds_a_client_is_refused(self, target: Any) -> None:
        """Without a parameter to fill in the mistake shows when the module is loaded."""
        with pytest.raises(uoa.ConfigurationError, match="real_client: "):
            uoa.real_client(target)

    def test_two_candidates_are_refused(self) -> None:
        """With several annotated parameters, none of them named `client`, nobody guesses."""

        def handle(one: uoa.Client, other: uoa.Client) -> None:
            pass

        with pytest.raises(uoa.ConfigurationError, match="several"):
            uoa.real_client(handle)

    @pytest.mark.parametrize(
        "arguments",
        [
            {"missing": "drop"},
            {"view": "both"},
            {"trust": "nonsense"},
            {"trust": [], "resolver": uoa.Resolver([])},
        ],
    )
    def test_wrong_arguments_are_refused(self, arguments: dict[str, Any]) -> None:
        """Options are judged at once."""
        with pytest.raises(uoa.ConfigurationError):
            uoa.real_client(**arguments)

    def test_functions_have_no_resolver(self) -> None:
        """Who resolves is said for classes; a function's datagram is resolved already."""
        with pytest.raises(uoa.ConfigurationError, match="for classes"):
            uoa.real_client(trust=[])(lambda client: client)


def echo_class(base: type[Recorder], decorate: Callable[..., Any]) -> Any:
    """Return a decorated protocol that remembers the clients it was given."""

    class Echo(base):  # type: ignore[misc, valid-type]
        """Answers."""

        def __init__(self) -> None:
            super().__init__(answer=True)
            self.clients: list[Any] = []

        def datagram_received(self, data: bytes, addr: Any, client: uoa.Client) -> None:
            assert uoa.current() == client
            self.clients.append(client)
            super().datagram_received(data, addr)

    return decorate(Echo)


@asynccontextmanager
async def plain_endpoint(factory: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Open an endpoint of the loop's own; give protocol and address."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(factory, ("127.0.0.1", 0))
    try:
        yield protocol, transport.get_extra_info("sockname")
    finally:
        transport.close()
        await protocol.until(lambda: "lost" in protocol.events)


class TestProtocolClasses:
    """A decorated DatagramProtocol."""

    def test_it_resolves_on_a_transport_of_the_loops(self, loop: Loop) -> None:
        """On the loop's own transport the class sees clients and answers their balancers."""
        resolver = uoa.Resolver(TRUST, dialects="ppv2")
        echo = echo_class(Recorder, uoa.real_client(resolver=resolver))

        async def main() -> None:
            async with plain_endpoint(echo) as (protocol, address):
                with udp_socket("127.0.0.1") as balancer:
                    for client in (ALICE, BOB) * 10:
                        send_claim(balancer, address, client, b"data", "ppv2")
                        assert await receive(balancer) == b"data"

            assert isinstance(protocol, echo)
            assert [(c.host, c.port) for c in protocol.clients] == [ALICE, BOB] * 10
            assert protocol.events == ["made", "lost"]

        loop.run(main)

    def test_it_does_nothing_twice(self, loop: Loop) -> None:
        """On an endpoint of uoa the endpoint resolves, and no trust is needed here."""

        async def main() -> None:
            protocol = echo_class(Recorder, uoa.real_client)()
            async with endpoint(protocol) as (transport, address):
                with udp_socket("127.0.0.1") as balancer:
                    send_claim(balancer, address, ALICE, b"data", "ppv2")
                    assert await receive(balancer) == b"data"
                    assert protocol.transport is transport

            assert [(c.host, c.port) for c in protocol.clients] == [ALICE]

        loop.run(main)

    def test_it_may_do_without_the_parameter(self, loop: Loop) -> None:
        """A class whose handler has no `client` is wrapped all the same."""

        async def main() -> None:
            resolver = uoa.Resolver(TRUST, dialects="ppv2")
            async with plain_endpoint(uoa.real_client(resolver=resolver)(Recorder)) as (
                protocol,
                address,
            ):
                with udp_socket("127.0.0.1") as balancer:
                    send_claim(balancer, address, ALICE, b"data", "ppv2")
                    assert await protocol.datagrams(1) == [(b"data", ALICE)]

        loop.run(main)

    def test_the_environment_may_say_whom_to_trust(
        self, loop: Loop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without arguments UOA_TRUST decides; without it the transport is aborted, and logged."""
        monkeypatch.delenv("UOA_TRUST", raising=False)

        async def main() -> None:
            running = asyncio.get_running_loop()
            transport, protocol = await running.create_datagram_endpoint(
                echo_class(Recorder, uoa.real_client), ("127.0.0.1", 0)
            )
            while not loop.complaints:
                await asyncio.sleep(0)
            assert transport.is_closing()
            assert protocol.events == []

        loop.run(main)
        assert isinstance(loop.complaints.pop()["exception"], uoa.TrustError)

    def test_the_class_keeps_its_face(self) -> None:
        """Name, module, docstring and bases stay."""
        echo = echo_class(Recorder, uoa.real_client(trust=[]))

        assert (echo.__name__, echo.__doc__, echo.__module__) == ("Echo", "Answers.", __name__)
        assert issubclass(echo, Recorder)
        assert [*inspect.signature(echo.datagram_received).parameters] == ["self", "data", "addr"]
