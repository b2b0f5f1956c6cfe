# SPDX-License-Identifier: MIT
"""DNS servers of dnslib whose resolvers see the client, over UDP and TCP.

    import uoa.dnslib
    from dnslib import A, QTYPE, RR

    class WhoAmI:
        @uoa.real_client
        def resolve(self, request, handler, client):
            reply = request.reply()
            reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(client.host)))
            return reply

    uoa.dnslib.DNSServer(WhoAmI(), port=53, trust=["10.0.0.0/24"]).start()

Needs dnslib: pip install "uoa[dns]".
"""

from __future__ import annotations

import functools
import logging
import socket
import socketserver
from typing import TYPE_CHECKING, Any

from uoa import _stream
from uoa._arguments import check_view, choose_resolver
from uoa._client import Client, addr_from
from uoa._context import acting_as
from uoa._exceptions import ConfigurationError, UnknownClientError
from uoa._extras import not_installed
from uoa._resolver import Resolver
from uoa.socketserver import ThreadingMixIn, ThreadingUDPServer
from uoa.socketserver import UDPServer as _AnyUDPServer

try:
    import dnslib
    import dnslib.server
except ImportError as error:
    raise not_installed("dnslib", "dns") from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uoa._client import View

__all__ = ["DNSHandler", "DNSServer", "TCPServer", "UDPServer"]

_log = logging.getLogger("uoa")

_HEADER_SECONDS = 5.0  # for a PROXY header
_QUERY_SECONDS = 10.0  # and then for the query and its answer

# RFC 1035, section 4.1.1: a bit of the third octet, and the place of a count.
_TRUNCATED = 0x02
_QUESTIONS = slice(4, 6)


class DNSHandler(dnslib.server.DNSHandler):  # type: ignore[misc]
    """The handler of dnslib, for queries that may be anything, and for balancers in front."""

    request: Any

    def handle(self) -> None:
        """Answer a query; that an answer cannot be sent is nothing to raise for."""
        if self.server.socket_type == socket.SOCK_DGRAM:
            query, sock = self.request
            self.request = query, _Answering(sock)
        super().handle()

    def get_reply(self, data: bytes) -> bytes:
        """Return the answer to a query; DNSError if it is none, which is logged."""
        try:
            reply: bytes = super().get_reply(data)
        except (UnicodeError, RecursionError, dnslib.DNSLabelError) as error:
            if _is_readable(data):
                raise  # It is the application's.
            raise dnslib.DNSError(f"not readable: {error}") from error
        is_truncated = reply[2] & _TRUNCATED and reply[_QUESTIONS] == b"\0\0"
        return _with_questions(reply, data) if is_truncated else reply


def _is_readable(query: bytes) -> bool:
    """Return whether a query can be parsed, and its questions repeated in an answer.

    It may have text that is none, endless pointers, or names that dnslib reads but
    does not write, since they are too long.
    """
    try:
        dnslib.DNSRecord(questions=dnslib.DNSRecord.parse(query).questions).pack()
    except (dnslib.DNSError, dnslib.DNSLabelError, UnicodeError, RecursionError):
        return False
    return True


class _Answering:
    """A server's socket, on which an answer that cannot be sent is lost to who asked only.

    Queries name their source themselves: port 0, say, or a host without a route.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendto(self, data: bytes, address: Any) -> None:
        try:
            self._sock.sendto(data, address)
        except OSError as error:
            _log.debug("answer to %s: %s", address, error)


def _with_questions(reply: bytes, query: bytes) -> bytes:
    """Return a truncated reply with its questions, by which balancers know an answer."""
    record = dnslib.DNSRecord.parse(reply)
    record.add_question(*dnslib.DNSRecord.parse(query).questions)
    packed: bytes = record.pack()
    return packed


class UDPServer(ThreadingUDPServer):
    """A server for DNSServer(server=…): a thread for each query, as dnslib has it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        # dnslib calls what answers `resolver`.
        self.client_resolver = self.resolver

    def get_request(self) -> tuple[Any, Any]:
        """Return the query that is there; DNS has no empty ones, which only bring a claim."""
        request, addr = super().get_request()
        if not request[0]:
            raise BlockingIOError  # serve_forever() takes the next.
        return request, addr


class TCPServer(ThreadingMixIn, socketserver.TCPServer):
    """A server for DNSServer(tcp=True, server=…): takes PROXY v2 headers of balancers off.

    A trusted peer begins each connection with one header. It has 5 seconds for
    that, and who asks has 10 more for the query and its answer. A connection that
    is slower, ends early or begins with a malformed header is closed.

    Raises:
        ConfigurationError: an argument is wrong, or the resolver does not read PROXY v2.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        server_address: tuple[str, int],
        RequestHandlerClass: Callable[..., socketserver.BaseRequestHandler],  # noqa: N803
        bind_and_activate: bool = True,
        *,
        resolver: Resolver | None = None,
        trust: str | Iterable[str] | None = None,
        view: View = "client",
    ) -> None:
        check_view(view)
        # Over TCP a header is the only way to tell.
        chosen = Resolver(trust, dialects="ppv2") if resolver is None else resolver
        self.client_resolver = choose_resolver(chosen, None if resolver is None else trust)
        _stream.check_resolver(self.client_resolver)
        self._view = view
        if ":" in server_address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(server_address, RequestHandlerClass, bind_and_activate)

    def get_request(self) -> tuple[Any, Any]:
        """Return the connection that is there, as one whose time is limited."""
        request, address = super().get_request()
        return _stream.Connection.take(request), address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Find out who asks, and answer; in the thread of the connection."""
        try:
            request.allow(_HEADER_SECONDS)
            client = _stream.read_client(request, self.client_resolver)
            if client is None or not self._is_served(client):
                return
            addr = addr_from(client, self._view, self.address_family == socket.AF_INET6)
            request.allow(_QUERY_SECONDS)
            with acting_as(addr):
                super().finish_request(request, addr)
        except _stream.ConnectionOverError as over:
            _log.debug("connection of %s: %s", client_address, over)

    def _is_served(self, client: Client) -> bool:
        """Return whether a client is one to serve; see `missing` of the resolver."""
        if client.source != "none" or self.client_resolver.missing == "peer":
            return True
        self.client_resolver.count_dropped(1)
        if self.client_resolver.missing == "raise":
            raise UnknownClientError(client.peer)
        return False


class DNSServer(dnslib.server.DNSServer):  # type: ignore[misc]
    """The DNSServer of dnslib, whose handlers' `client_address` is the client.

    The arguments before `client_resolver` are those of dnslib. Replies go through
    the balancer. `uoa.current()` is set while the resolver answers, in its thread.

    Args:
        resolver: what answers queries, as in dnslib.
        address: where to listen; an IPv6 address makes an IPv6 socket.
        port: where to listen.
        tcp: serve TCP, whose connections from trusted peers begin with a PROXY
            v2 header; each answers one query, as in dnslib.
        logger: as in dnslib.
        handler: as in dnslib: a subclass of `DNSHandler`.
        server: a subclass of `uoa.socketserver.UDPServer`, or of `TCPServer`.
        client_resolver: who tells the client; it stays open when the server stops.
        trust: a shorthand for `client_resolver=Resolver(trust)`; over TCP it reads ppv2.
        view: how `client_address` reads: "client", or "peer", as the socket saw it.

    Raises:
        ConfigurationError: an argument is wrong, or the resolver cannot serve TCP.
        BackendError: the backend cannot work; its text says why.
    """

    def __init__(
        self,
        resolver: Any,
        address: str = "",
        port: int = 53,
        tcp: bool = False,
        logger: Any = None,
        handler: Any = DNSHandler,
        server: Any = None,
        *,
        client_resolver: Resolver | None = None,
        trust: str | Iterable[str] | None = None,
        view: View = "client",
    ) -> None:
        if server is None:
            server = TCPServer if tcp else UDPServer
        base = TCPServer if tcp else _AnyUDPServer
        if not (isinstance(server, type) and issubclass(server, base)):
            raise ConfigurationError(
                f"server: {server!r} does not see clients: give a subclass of "
                f"{base.__module__}.{base.__qualname__}"
            )
        serving = functools.partial(server, resolver=client_resolver, trust=trust, view=view)
        super().__init__(resolver, address, port, tcp, logger, handler, serving)

    def stop(self) -> None:
        """Stop serving, and close the socket."""
        super().stop()
        self.server.server_close()
