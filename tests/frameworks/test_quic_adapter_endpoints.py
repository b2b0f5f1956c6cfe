# SPDX-License-Identifier: MIT
"""`@uoa.real_client` on endpoints of Starlette, FastAPI and Quart, behind QuicAdapter."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi import Request as FastAPIRequest
from quart import Quart
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

import uoa
import uoa.testing
from tests.frameworks.h3 import Scope
from uoa.middleware import QuicAdapter

ADDR = uoa.testing.addr()
WHO = [ADDR.client.host, ADDR.client.port, ADDR.client.source]


def scope_of(path: str, client: Any = ADDR, **more: Any) -> Scope:
    """Return a scope as servers make it."""
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "3", "method": "GET",
        "scheme": "https", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": [(b"host", b"uoa.test")], "client": client,
        "server": ("192.0.2.1", 443), "extensions": {}, "state": {}, **more,
    }  # fmt: skip


def call(app: Any, scope: Scope, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Call an application; return what it sends."""
    sent: list[dict[str, Any]] = []

    async def main() -> None:
        waiting: list[dict[str, Any]] = [
            *(messages or [{"type": "http.request", "body": b"", "more_body": False}])
        ]

        is_answered = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if not waiting:
                await is_answered.wait()
                return {"type": "http.disconnect"}
            return waiting.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                is_answered.set()

        async with asyncio.timeout(20):
            await app(scope, receive, send)
        assert uoa.current() is None

    asyncio.run(main())
    return sent


def get(app: Any, path: str, **more: Any) -> Any:
    """Make a request; return the JSON that is answered."""
    start, *parts = call(app, scope_of(path, **more))
    body = b"".join(part.get("body", b"") for part in parts)
    assert start["status"] == 200, body
    return json.loads(body)


def say(client: uoa.Client | None) -> list[Any]:
    """Tell a client, if current() says the same."""
    assert client is not None
    assert client == uoa.current()
    return [client.host, client.port, client.source]


@uoa.real_client
def _dependency(client: uoa.Client) -> list[Any]:
    return say(client)


class TestStarlette:
    """Functions, coroutine functions, methods of endpoint classes."""

    @pytest.fixture
    def app(self) -> Starlette:
        """Return an application with all kinds of endpoints."""

        @uoa.real_client
        async def coroutine(request: Request, client: uoa.Client) -> JSONResponse:
            return JSONResponse(say(client))

        @uoa.real_client
        def function(request: Request, client: uoa.Client) -> JSONResponse:
            return JSONResponse(say(client))

        class Both(HTTPEndpoint):
            @uoa.real_client
            async def get(self, request: Request, client: uoa.Client) -> JSONResponse:
                return JSONResponse(say(client))

            @uoa.real_client
            def post(self, request: Request, client: uoa.Client) -> JSONResponse:
                return JSONResponse(say(client))

        class Socket(WebSocketEndpoint):
            encoding = "text"

            @uoa.real_client
            async def on_connect(self, websocket: WebSocket, client: uoa.Client) -> None:
                await websocket.accept()
                await websocket.send_json(say(client))

            @uoa.real_client
            async def on_receive(self, websocket: WebSocket, data: Any, client: uoa.Client) -> None:
                await websocket.send_json([data, *say(client)])

        def state(request: Request) -> JSONResponse:
            assert request.client is not None
            return JSONResponse([*request.client, *say(request.state.real_client)])

        return Starlette(
            routes=[
                Route("/coroutine", coroutine),
                Route("/function", function),
                Route("/class", Both),
                Route("/state", state),
                WebSocketRoute("/socket", Socket),
            ],
            middleware=[Middleware(QuicAdapter, emit_state=True)],
        )

    @pytest.mark.parametrize("path", ["/coroutine", "/function", "/class"])
    def test_functions(self, app: Starlette, path: str) -> None:
        """The parameter is filled in, on the loop and in worker threads."""
        assert get(app, path) == WHO

    def test_a_method_in_a_thread(self, app: Starlette) -> None:
        """A plain method of an endpoint class runs in a thread, and knows the client."""
        assert get(app, "/class", method="POST") == WHO

    def test_state(self, app: Starlette) -> None:
        """request.client is the client, and request.state.real_client has the facts."""
        assert get(app, "/state") == [ADDR.client.host, ADDR.client.port, *WHO]

    def test_websockets(self, app: Starlette) -> None:
        """Methods of a WebSocketEndpoint know it, also for messages that come later."""
        scope = scope_of("/socket", type="websocket", subprotocols=[], scheme="wss")
        accepted, *said, _ = [*call(
            app, scope, {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "hello"},
            {"type": "websocket.disconnect", "code": 1000},
        ), {}]  # fmt: skip

        assert accepted["type"] == "websocket.accept"
        assert [json.loads(message["text"]) for message in said] == [WHO, ["hello", *WHO]]

    def test_without_uoa_there_is_no_client(self, app: Starlette) -> None:
        """On a server that knows nothing of it the parameter is None, as the decorator says."""

        @uoa.real_client
        async def home(request: Request, client: uoa.Client | None = None) -> JSONResponse:
            return JSONResponse(client is None)

        plain = Starlette(routes=[Route("/", home)], middleware=[Middleware(QuicAdapter)])
        assert get(plain, "/", client=("192.0.2.7", 1)) is True


class TestFastAPI:
    """The parameter is no query parameter, and annotations are strings in this file."""

    @pytest.fixture
    def app(self) -> FastAPI:
        """Return an application with all kinds of endpoints."""
        app = FastAPI()
        app.add_middleware(QuicAdapter)

        @app.get("/coroutine")
        @uoa.real_client
        async def coroutine(client: uoa.Client, q: int = 7) -> list[Any]:
            return [q, *say(client)]

        @app.get("/function/{item}")
        @uoa.real_client
        def function(item: int, client: uoa.Client) -> list[Any]:
            return [item, *say(client)]

        @app.get("/request")
        @uoa.real_client
        async def request(request: FastAPIRequest, client: uoa.Client) -> list[Any]:
            return say(client)

        @app.get("/annotated")
        @uoa.real_client
        async def annotated(visitor: uoa.Client, q: int) -> list[Any]:
            return [q, *say(visitor)]

        @app.get("/depends")
        def depends(who: Annotated[list[Any], Depends(_dependency)]) -> list[Any]:
            return who

        return app

    @pytest.mark.parametrize(
        ("path", "query", "answer"),
        [
            ("/coroutine", b"", [7, *WHO]),
            ("/coroutine", b"q=9&client=forged", [9, *WHO]),
            ("/function/3", b"", [3, *WHO]),
            ("/request", b"", WHO),
            ("/annotated", b"q=1", [1, *WHO]),
            ("/depends", b"", WHO),
        ],
    )
    def test_endpoints(self, app: FastAPI, path: str, query: bytes, answer: Any) -> None:
        """The client is filled in, and the other parameters are FastAPI's."""
        assert get(app, path, query_string=query) == answer

    def test_openapi(self, app: FastAPI) -> None:
        """The description of the interface has no parameter for it."""
        paths = get(app, "/openapi.json")["paths"]
        parameters = {
            path: [parameter["name"] for parameter in methods["get"].get("parameters", [])]
            for path, methods in paths.items()
        }

        assert parameters == {
            "/coroutine": ["q"], "/function/{item}": ["item"], "/request": [],
            "/annotated": ["q"], "/depends": [],
        }  # fmt: skip


def test_quart() -> None:
    """Quart's handlers have no arguments: they find the client by the context."""
    app = Quart(__name__)

    @app.get("/")
    @uoa.real_client
    async def home(client: uoa.Client) -> list[Any]:
        return say(client)

    @app.get("/plain")
    @uoa.real_client
    def plain(client: uoa.Client) -> list[Any]:
        return say(client)

    adapted: Any = QuicAdapter(app.asgi_app)
    for path in ("/", "/plain"):
        start, *parts = call(
            adapted, scope_of(path),
            {"type": "http.request", "body": b"", "more_body": False},
        )  # fmt: skip
        assert start["status"] == 200
        assert json.loads(b"".join(part.get("body", b"") for part in parts)) == WHO
