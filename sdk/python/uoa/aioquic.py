# SPDX-License-Identifier: MIT
"""QUIC servers of aioquic whose connections know their client.

    class App(uoa.aioquic.RealClientMixin, QuicConnectionProtocol):
        def client_changed(self, old, new):
            if not allowed(new):
                self.close(error_code=1, reason_phrase="moved")

        def quic_event_received(self, event):
            handle(event, self.client)

    await uoa.aioquic.serve(
        "::", 4433, configuration=cfg, create_protocol=App, trust=["10.0.0.0/24"]
    )

A datagram reaches a connection before anything has authenticated it. So a
connection's client is not that of the latest datagram, which is what
`uoa.current()` tells, but that of the active network path.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any

from uoa._client import Addr
from uoa._exceptions import BackendError, ConfigurationError, UnknownClientError
from uoa._extras import not_installed
from uoa.asyncio import create_datagram_endpoint

try:
    import aioquic
except ImportError as error:
    raise not_installed("aioquic", "quic") from error

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import Epoch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aioquic.asyncio.protocol import QuicStreamHandler
    from aioquic.tls import SessionTicketFetcher, SessionTicketHandler

    from uoa._client import Client, View
    from uoa._resolver import Resolver

    # What the mixin stands in front of; at run time it is a class of its own.
    _Protocol = QuicConnectionProtocol
else:
    _Protocol = object

__all__ = ["RealClientMixin", "serve"]

_log = logging.getLogger("uoa")

_INITIAL = Epoch.INITIAL  # looked up for every datagram


def _newest(quic: Any) -> int:
    """Return a number that grows when a packet is authenticated that is newer than all others.

    It is 0 before the first. Packets of the space INITIAL prove nothing: their
    keys follow from what everybody on the way can read.
    """
    newest: int = 0
    for epoch, space in quic._spaces.items():
        if epoch is not _INITIAL:
            newest += space.largest_received_packet + 1
    return newest


@functools.cache
def _check_release() -> None:
    """Refuse a release of aioquic without the private names that the mixin reads.

    Raises:
        BackendError: one is missing.
    """
    quic: Any = QuicConnection(configuration=QuicConfiguration(is_client=True))
    quic.connect(("127.0.0.1", 1), now=0.0)  # which sends nothing
    try:
        quic._network_paths[0].addr  # noqa: B018
        _newest(quic)
        quic._spaces[Epoch.INITIAL].largest_received_packet  # noqa: B018
        QuicConnectionProtocol._process_events  # noqa: B018
    except (AttributeError, LookupError, TypeError) as error:
        raise BackendError(
            f"aioquic {aioquic.__version__}: RealClientMixin finds no active network path there "
            f"({error}): install a release that uoa[quic] allows, or a newer uoa"
        ) from error


class RealClientMixin(_Protocol):
    """In front of a QuicConnectionProtocol: whose connection this is.

        class App(uoa.aioquic.RealClientMixin, QuicConnectionProtocol): ...

    The client is that of the active network path, as the newest authenticated
    datagram on it named it. Junk, replays and old packets that come late change
    nothing. Before the handshake is completed nobody has proved anything: then
    it is whoever sent the first datagram, and no change of it is told.

    Raises:
        BackendError: when a class is derived: this release of aioquic is not known.
    """

    # The datagram at hand, and what _newest() was before it; until that is settled.
    _uoa_arrived: tuple[Any, int] | None = None
    # The active path's address, the last time that anybody could be told of a change.
    _uoa_told: Addr | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        _check_release()

    @property
    def client_address(self) -> Addr | None:
        """The address of the active network path: `@uoa.real_client` finds it by this name."""
        paths: Any = self._quic._network_paths
        addr = paths[0].addr if paths else None
        return addr if isinstance(addr, Addr) else None

    @property
    def client(self) -> Client | None:
        """Whose connection this is; None before its first datagram."""
        addr = self.client_address
        return None if addr is None else addr.client

    @property
    def peer(self) -> tuple[str, int] | None:
        """Where answers go: the balancer that the client comes through now."""
        addr = self.client_address
        return None if addr is None else addr.peer

    def client_changed(self, old: Client, new: Client) -> None:
        """Learn that the client has another address or port: override it to decide again.

        Called before the events of the datagram that told. They follow even when
        this closes the connection.
        """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport of a server that was opened with serve().

        Raises:
            ConfigurationError: it is another one, which knows no clients.
        """
        if transport.get_extra_info("uoa.resolver") is None:
            raise ConfigurationError(
                f"{type(self).__qualname__}: RealClientMixin is on a transport that knows no "
                "clients: open the server with uoa.aioquic.serve()"
            )
        super().connection_made(transport)

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        """Handle a datagram, and remember who sent it until its packets are authenticated."""
        self._uoa_arrived = addr, _newest(self._quic)
        try:
            super().datagram_received(data, addr)
        finally:
            self._uoa_arrived = None

    def _process_events(self) -> None:
        """Settle who the client is, then hand events over: after a datagram, or a timer."""
        if self._uoa_arrived is not None:
            addr, newest = self._uoa_arrived
            self._uoa_arrived = None
            path: Any = self._quic._network_paths[:1]
            # Equal, so that aioquic sees no other path; but with the client of today.
            if path and path[0].addr == addr and _newest(self._quic) > newest:
                path[0].addr = addr
        self._uoa_tell()
        super()._process_events()

    def _uoa_tell(self) -> None:
        """Call client_changed() if it is another one than the last time, and has proved itself."""
        addr, told = self.client_address, self._uoa_told
        if addr is None or addr is told or not _newest(self._quic):
            return
        self._uoa_told = addr
        if told is None:
            return
        old, new = told.client, addr.client
        if (old.host, old.port) != (new.host, new.port):
            try:
                self.client_changed(old, new)
            except Exception as error:
                # Events and timers of the connection go on.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "Exception in client_changed()", "exception": error}
                )


class _Server(QuicServer):
    """aioquic's server, which says what becomes of unknown clients with missing="raise"."""

    _has_said = False

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        try:
            super().datagram_received(data, addr)
        except AssertionError as error:
            # Of releases before 1.5. What comes first is for the sender to choose, and no
            # matter for the event loop's exception handler.
            if str(error) != "first packet must be INITIAL":
                raise

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, UnknownClientError) and not self._has_said:
            self._has_said = True
            _log.warning("aioquic: %s: dropped (said once; later ones are counted)", exc)


async def serve(
    host: str,
    port: int,
    *,
    configuration: QuicConfiguration,
    create_protocol: Callable[..., QuicConnectionProtocol] = QuicConnectionProtocol,
    session_ticket_fetcher: SessionTicketFetcher | None = None,
    session_ticket_handler: SessionTicketHandler | None = None,
    retry: bool = False,
    stream_handler: QuicStreamHandler | None = None,
    resolver: Resolver | None = None,
    trust: str | Iterable[str] | None = None,
    view: View = "peer",
) -> QuicServer:
    """Start a QUIC server that knows the clients of its connections.

    The arguments before `resolver`, and what is returned, are those of
    aioquic.asyncio.serve(). Datagrams of unknown clients are dropped and
    counted if the resolver's `missing` is "drop" or "raise"; "raise" logs the first.

    Args:
        resolver: who resolves; it stays open when the server closes.
        trust: a shorthand for `resolver=Resolver(trust)`.
        view: what aioquic takes for the address of the other side: "peer", or
            "client" for a balancer that may move a flow during the handshake.

    Raises:
        ConfigurationError: an argument is wrong.
        BackendError: the backend cannot work; its text says why.
    """

    def make_server() -> QuicServer:
        return _Server(
            configuration=configuration,
            create_protocol=create_protocol,
            session_ticket_fetcher=session_ticket_fetcher,
            session_ticket_handler=session_ticket_handler,
            retry=retry,
            stream_handler=stream_handler,
        )

    _, server = await create_datagram_endpoint(
        make_server, (host, port), resolver=resolver, trust=trust, view=view
    )
    assert isinstance(server, QuicServer)
    return server
