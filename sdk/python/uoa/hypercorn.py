# SPDX-License-Identifier: MIT
"""HTTP/3 by hypercorn, for any ASGI application, with the client in `scope["client"]`.

    import asyncio, uoa.hypercorn
    from hypercorn.config import Config
    from starlette.applications import Starlette
    from starlette.middleware import Middleware

    app = Starlette(routes=routes, middleware=[Middleware(uoa.middleware.QuicAdapter)])
    config = Config()
    config.quic_bind, config.bind = ["0.0.0.0:443"], ["0.0.0.0:443"]
    config.certfile, config.keyfile = "cert.pem", "key.pem"
    asyncio.run(uoa.hypercorn.serve(app, config, trust=["10.0.0.0/24"]))

On asyncio and on uvloop, whichever runs. hypercorn fixes the client of a connection at
the end of its handshake: one that moves to another network later keeps the first address.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
import socket
from typing import TYPE_CHECKING, Any, Literal

from uoa._arguments import choose_resolver
from uoa._exceptions import BackendError, ConfigurationError, UnknownClientError
from uoa._extras import not_installed
from uoa._receiver import Receiver
from uoa.asyncio import create_datagram_endpoint

try:
    import hypercorn.asyncio
    from hypercorn.events import RawData
except ImportError as error:
    raise not_installed("hypercorn", "hypercorn") from error
try:
    from aioquic.h3.connection import ErrorCode
    from aioquic.quic.configuration import QuicConfiguration
except ImportError as error:
    raise not_installed("aioquic", "hypercorn") from error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from hypercorn.asyncio.udp_server import UDPServer
    from hypercorn.config import Config, Sockets
    from hypercorn.events import Event

    from uoa._client import Addr
    from uoa._resolver import Resolver

__all__ = ["serve"]

# Datagrams that wait for hypercorn before no more are taken from the socket: as many as the
# endpoint reads in one wake-up. The kernel bounds and counts what waits behind them.
_HIGH_WATER = 256

_log = logging.getLogger("uoa")


async def serve(
    app: Callable[..., Any],
    config: Config,
    *,
    resolver: Resolver | None = None,
    trust: str | Iterable[str] | None = None,
    shutdown_trigger: Callable[..., Awaitable[Any]] | None = None,
    mode: Literal["asgi", "wsgi"] | None = None,
) -> None:
    """Serve an application as hypercorn.asyncio.serve() does, with clients known over HTTP/3.

    `scope["client"]` of an HTTP/3 request is an `Addr` that reads as the client;
    `uoa.middleware.QuicAdapter` makes the rest of it. The TCP listeners of the same
    configuration work too, and show their peer as ever: uoa knows UDP only. Datagrams
    of unknown clients are lost with missing="drop" and missing="raise" alike, and counted:
    there is no request yet that could fail.

    Args:
        app: as for hypercorn.
        config: as for hypercorn, with `quic_bind`, `certfile` and `keyfile` set; it is copied.
        resolver: who resolves; it stays open at the end.
        trust: a shorthand for `resolver=Resolver(trust)`.
        shutdown_trigger: as for hypercorn; it is called once all sockets are being served.
        mode: as for hypercorn.

    Raises:
        ConfigurationError: an argument is wrong, there is no QUIC socket to serve, or the
            loop is not one of asyncio's kind.
        BackendError: a socket or the loop cannot be served; its text says why.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "hypercorn: no loop of asyncio runs here: run serve() by asyncio.run() or on uvloop; "
            "hypercorn's trio worker is not supported"
        ) from None
    _check(config)
    chosen = choose_resolver(resolver, trust)
    own = copy.copy(config)
    sockets = own.create_sockets()
    own.create_sockets = lambda: sockets  # type: ignore[method-assign]
    endpoints = _Endpoints(chosen)
    hook = None
    try:
        for sock in sockets.quic_sockets:
            # What cannot work is to be told before the application has been started.
            Receiver(sock, chosen, "client", 1).close()
        hook = _Hook.on(loop)
        hook.expect(sockets.quic_sockets, endpoints)
        await hypercorn.asyncio.serve(app, own, shutdown_trigger=shutdown_trigger, mode=mode)
    finally:
        if hook is not None:
            hook.forget(sockets.quic_sockets)
        await endpoints.close()
        _close(sockets)
        if resolver is None:
            chosen.close()


def _check(config: Config) -> None:
    """Refuse what serves no QUIC, or fails when hypercorn has nobody left to tell."""
    if not config.quic_bind:
        raise ConfigurationError(
            "config.quic_bind: it is empty, so that nothing serves HTTP/3: set it to "
            '["0.0.0.0:443"], say; for TCP alone take hypercorn.asyncio.serve()'
        )
    if config.certfile is None or config.keyfile is None:
        raise ConfigurationError(
            "config.certfile, config.keyfile: not set, and hypercorn opens no QUIC socket without: "
            "name files with the certificate chain and its key"
        )
    try:
        QuicConfiguration(is_client=False).load_cert_chain(config.certfile, config.keyfile)
    except (OSError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"config.certfile {config.certfile!r}, config.keyfile {config.keyfile!r}: {error}: "
            "for QUIC hypercorn needs a readable PEM file each, the key without a password"
        ) from error


def _close(sockets: Sockets) -> None:
    """Close what was never served; hypercorn's servers and our endpoints close their own."""
    for sock in (*sockets.secure_sockets, *sockets.insecure_sockets, *sockets.quic_sockets):
        if sock.fileno() >= 0 and not _listens(sock):
            sock.close()


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


# ---- Between the loop and hypercorn --------------------------------------------------


class _Hook:
    """Stands for one loop's create_datagram_endpoint() while servers there open QUIC sockets.

    hypercorn opens them by that method, on asyncio and on uvloop, and offers no other
    place. Those sockets get an endpoint of ours; whatever else is opened is the loop's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Any = loop
        self._original: Any = loop.create_datagram_endpoint
        self._was_replaced = "create_datagram_endpoint" in getattr(loop, "__dict__", {})
        self._expected: dict[socket.socket, _Endpoints] = {}

    @staticmethod
    def on(loop: asyncio.AbstractEventLoop) -> _Hook:
        """Return the hook of a loop, put there unless another server has done so."""
        found: Any = loop.create_datagram_endpoint
        if isinstance(found, _Hook):
            return found
        hook = _Hook(loop)
        try:
            loop.create_datagram_endpoint = hook  # type: ignore[method-assign, assignment]
        except (AttributeError, TypeError) as error:
            raise BackendError(
                f"hypercorn: loop {type(loop).__qualname__} does not let its "
                f"create_datagram_endpoint be replaced: {error}: run on asyncio's own loop"
            ) from error
        return hook

    def expect(self, sockets: Iterable[socket.socket], endpoints: _Endpoints) -> None:
        """Serve these sockets as soon as somebody opens them."""
        self._expected.update(dict.fromkeys(sockets, endpoints))

    def forget(self, sockets: Iterable[socket.socket]) -> None:
        """Serve these no more; the last one takes the hook away."""
        for sock in sockets:
            self._expected.pop(sock, None)
        # Who has put something in our place since then has us behind it, passing all on.
        if self._expected or self._loop.create_datagram_endpoint is not self:
            return
        if self._was_replaced:
            self._loop.create_datagram_endpoint = self._original
        else:
            del self._loop.create_datagram_endpoint

    async def __call__(self, factory: Any, *arguments: Any, **keywords: Any) -> Any:
        """Open an endpoint: ours on the sockets that are expected."""
        sock: Any = keywords.get("sock")
        endpoints = self._expected.get(sock)
        if endpoints is None:
            return await self._original(factory, *arguments, **keywords)
        opened = await endpoints.open(factory, sock)
        self.forget([sock])
        return opened


class _Endpoints:
    """The endpoints of one server."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._transports: list[asyncio.DatagramTransport] = []

    async def open(
        self, factory: Callable[[], UDPServer], sock: socket.socket
    ) -> tuple[asyncio.DatagramTransport, UDPServer]:
        """Return what hypercorn expects: a transport, and its own protocol."""
        server = factory()
        if not hasattr(server, "protocol_queue"):
            raise BackendError(
                "hypercorn: its UDP server has no protocol_queue here: install a release that "
                "uoa[hypercorn] allows, or a newer uoa"
            )
        transport, _ = await create_datagram_endpoint(
            lambda: _Feed(server), sock=sock, resolver=self._resolver, view="client"
        )
        self._transports.append(transport)
        return transport, server

    async def close(self) -> None:
        """Close them, which hypercorn does not."""
        for transport in self._transports:
            transport.close()
        await asyncio.sleep(0)  # connection_lost() closes the sockets


class _Feed(asyncio.DatagramProtocol):
    """Hands batches of datagrams to hypercorn, and leaves them in the socket when it is slow."""

    def __init__(self, server: UDPServer) -> None:
        self._server = server
        self._has_complained = False

    def connection_made(self, transport: Any) -> None:
        """Give hypercorn the transport, and a queue that does not throw anything away."""
        self._queue = _Queue(transport, lambda: _contain(self._server.protocol))
        self._server.protocol_queue = self._queue
        self._server.connection_made(transport)

    def datagrams_received(self, datagrams: list[tuple[bytes, Addr]]) -> None:
        """Queue a batch; QUIC has no empty datagrams, so that those are only uoa's business."""
        for data, addr in datagrams:
            if data:
                self._queue.put_nowait(RawData(data=data, address=addr))
        self._queue.pause_if_full()

    def error_received(self, exc: Exception) -> None:
        """Say once that clients are refused; what the network reports is QUIC's to notice."""
        if isinstance(exc, UnknownClientError) and not self._has_complained:
            self._has_complained = True
            _log.warning('hypercorn: %s: missing="raise" drops it (said once)', exc)


class _Queue(asyncio.Queue["Event"]):
    """A queue that stops its transport from reading while it is full, and so stays bounded."""

    def __init__(self, transport: Any, before_first: Callable[[], None]) -> None:
        super().__init__()
        self._transport = transport
        self._before_first: Callable[[], None] | None = before_first

    async def get(self) -> Event:
        """Return the next; hypercorn has made all that it needs when it asks for the first."""
        if self._before_first is not None:
            self._before_first()
            self._before_first = None
        return await super().get()

    def pause_if_full(self) -> None:
        """Read no more for now, after a batch that has filled the queue."""
        if self.qsize() >= _HIGH_WATER:
            self._transport.pause_reading()

    def _get(self) -> Event:
        item = super()._get()
        if self.empty():
            self._transport.resume_reading()
        return item


# ---- Connections that fail -----------------------------------------------------------


def _contain(protocol: Any) -> None:
    """Let an exception about one connection end that connection, and leave the others alone.

    The connections of a socket share a task group, which no exception may reach.
    """
    handle_events, spawn = protocol._handle_events, protocol.task_group.spawn
    said = False

    def say(error: Exception) -> None:
        nonlocal said
        level, once = (logging.DEBUG, "") if said else (logging.WARNING, " (said once)")
        said = True
        _log.log(level, "hypercorn: a connection failed: %r%s", error, once, exc_info=error)

    async def handle_contained(connection: Any, client: Any = None) -> None:
        for _ in range(2):
            try:
                await handle_events(connection, client)
                return
            except Exception as error:
                say(error)
                # HTTP hears of this connection no more; what is left of its events, and
                # the timer that ends it, are seen to in the next round.
                connection.h3 = None
                connection.quic.close(error_code=ErrorCode.H3_INTERNAL_ERROR)

    async def run_contained(function: Callable[..., Any], *arguments: Any) -> None:
        try:
            await function(*arguments)
        except Exception as error:
            say(error)

    protocol._handle_events = handle_contained
    protocol.task_group.spawn = functools.partial(spawn, run_contained)
