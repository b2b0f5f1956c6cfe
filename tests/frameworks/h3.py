# SPDX-License-Identifier: MIT
"""What tests of HTTP/3 share: aioquic's client, and hypercorn on a free port."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent
from cryptography.hazmat.primitives import serialization
from hypercorn.config import Config, Sockets

import uoa
import uoa.hypercorn
from tests.frameworks import quic
from tests.frameworks.quic import NAME
from tests.senders import Address
from tests.unit.endpoints import TRUST

# As servers hand them over; each framework has its own types for them.
Scope = dict[str, Any]
Receive = Any
Send = Any


# ---- The client ----------------------------------------------------------------------


class Response(NamedTuple):
    """What a server answered."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class H3Client(QuicConnectionProtocol):
    """One connection that makes HTTP/3 requests, several at a time if wanted."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._http = H3Connection(self._quic)
        self._answers: dict[int, asyncio.Future[Response]] = {}
        self._parts: dict[int, tuple[list[tuple[bytes, bytes]], bytearray]] = {}

    async def request(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
    ) -> Response:
        """Make a request, and return the answer."""
        stream = self._quic.get_next_available_stream_id()
        head = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", NAME.encode()),
            (b":path", path.encode()),
            *headers,
        ]
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._answers[stream] = answer
        self._parts[stream] = ([], bytearray())
        self._http.send_headers(stream, head, end_stream=not body)
        if body:
            self._http.send_data(stream, body, end_stream=True)
        self.transmit()
        return await answer

    def quic_event_received(self, event: QuicEvent) -> None:
        """Collect what belongs to an answer."""
        for part in self._http.handle_event(event):
            if not isinstance(part, (HeadersReceived, DataReceived)):
                continue
            headers, body = self._parts[part.stream_id]
            if isinstance(part, HeadersReceived):
                headers += part.headers
            else:
                body += part.data
            if part.stream_ended:
                status = int(dict(headers)[b":status"])
                answer = Response(status, headers, bytes(body))
                self._answers.pop(part.stream_id).set_result(answer)


def _configuration() -> QuicConfiguration:
    return QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, server_name=NAME, verify_mode=ssl.CERT_NONE
    )


def first_datagram(to: Address) -> bytes:
    """Return what a client sends first."""
    connection = QuicConnection(configuration=_configuration())
    connection.connect(to, now=0.0)
    [(data, _)] = connection.datagrams_to_send(now=0.0)
    return data


def client(to: Address) -> AbstractAsyncContextManager[H3Client]:
    """Return a connection to `to`, as an asynchronous context manager."""
    connection = connect(*to, configuration=_configuration(), create_protocol=H3Client)
    return cast("AbstractAsyncContextManager[H3Client]", connection)


# ---- The server ----------------------------------------------------------------------


@functools.cache
def certificate() -> Path:
    """Return the certificate's file; beside it: key.pem and, with a password, locked.pem."""
    folder = Path(tempfile.mkdtemp(prefix="uoa-h3-"))
    atexit.register(shutil.rmtree, folder)
    _, key = quic.certificate()
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (folder / "locked.pem").write_bytes(locked)
    return quic.write_certificate(folder)[0]


class H3Config(Config):
    """A configuration of hypercorn for QUIC alone, that remembers where its sockets are."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.addresses: list[Address] = []
        """Of the QUIC sockets."""
        self.tcp_addresses: list[Address] = []
        self.bind = []
        self.quic_bind = [f"[{host}]:0" if ":" in host else f"{host}:0"]
        self.certfile = str(certificate())
        self.keyfile = str(certificate().with_name("key.pem"))
        # hypercorn waits that long for connections to end, also when there is none.
        self.graceful_timeout = 0.05
        self.errorlog = None

    def create_sockets(self) -> Sockets:
        """Create them, and remember."""
        sockets = super().create_sockets()
        self.addresses += [sock.getsockname()[:2] for sock in sockets.quic_sockets]
        self.tcp_addresses += [sock.getsockname()[:2] for sock in sockets.secure_sockets]
        return sockets


@asynccontextmanager
async def serving(
    app: Any, config: H3Config | None = None, **arguments: Any
) -> AsyncIterator[Address]:
    """Run uoa.hypercorn.serve() while the block runs; give the address to talk to."""
    config = config or H3Config()
    if "resolver" not in arguments and "trust" not in arguments:
        arguments["resolver"] = uoa.Resolver(TRUST, dialects="ppv2")
    ready, stop = asyncio.Event(), asyncio.Event()

    async def until_stopped() -> None:
        ready.set()
        await stop.wait()

    server = asyncio.create_task(
        uoa.hypercorn.serve(app, config, shutdown_trigger=until_stopped, **arguments)
    )
    is_ready = asyncio.create_task(ready.wait())
    await asyncio.wait([server, is_ready], return_when=asyncio.FIRST_COMPLETED)
    is_ready.cancel()
    try:
        if server.done():
            await server  # It raises what went wrong.
        host, port = config.addresses[0]
        yield {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port
    finally:
        stop.set()
        await server


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what the scope says of the client: a bare ASGI application."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    current = uoa.current()
    told = {
        "version": scope["http_version"],
        "client": scope["client"],
        "extension": scope["extensions"].get("uoa"),
        "current": current and [current.host, current.port],
        "received": len(body),
    }
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
