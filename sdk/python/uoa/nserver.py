# SPDX-License-Identifier: MIT
"""nserver's UDP transports and applications, whose rules see the client.

    import nserver, uoa, uoa.nserver

    server = nserver.NameServer("whoami")

    @server.rule(nserver.ZoneRule, "", ["TXT"])
    @uoa.real_client
    def whoami(query, client):
        return nserver.TXT(query.name, client.host)

    transport = uoa.nserver.UDPv4Transport("0.0.0.0", 53, trust=["10.0.0.0/24"])
    uoa.nserver.DirectApplication(server, transport).run()

Rules get no address from nserver: `uoa.current()` has the client while a rule runs.
Nothing that comes from the network counts as an error of the application. TCP is not
served: nserver's own transport would see the balancer.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from uoa._context import acting_as
from uoa._exceptions import ConfigurationError, UnknownClientError
from uoa._extras import not_installed
from uoa._socket import Socket

try:
    import nserver.application as _applications
    import nserver.transport as _transports
    from nserver.exceptions import InvalidMessageError
except ImportError as error:
    raise not_installed("nserver", "nserver") from error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nserver.server import NameServer, RawNameServer

    from uoa._client import View
    from uoa._resolver import Resolver

__all__ = ["DirectApplication", "ThreadsApplication", "UDPv4Transport", "UDPv6Transport"]

_LARGEST = 65535  # bytes; EDNS queries are longer than nserver's 512
_LOGGED = 512  # bytes of an undecodable message, which nserver writes to its log

# bytes of a name and of each of its labels, RFC 1035, section 3.1; dnslib's names end in no dot
_LONGEST_NAME, _LONGEST_LABEL = 253, 63

# What a socket reports of datagrams that were sent before, not of itself.
_OF_OTHERS = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH}


def _can_be_repeated(query: Any) -> bool:
    """Return whether an answer can hold the questions: dnslib reads longer names than it writes."""
    names = [question.qname for question in query.questions]
    return all(
        len(name) <= _LONGEST_NAME and all(len(label) <= _LONGEST_LABEL for label in name.label)
        for name in names
    )


class UDPv4Transport(_transports.UDPv4Transport):
    """The UDP transport of nserver, on a `uoa.Socket`.

    `transport_data.remote_address` of its messages and `client_address` of their
    records are the `uoa.Addr` of the client. Empty datagrams are no messages. With
    missing="raise" a datagram of an unknown client is an InvalidMessageError, which
    nserver logs.

    Args:
        address: where to listen.
        port: where to listen.
        resolver: who resolves; it stays open when the server stops.
        trust: a shorthand for `resolver=Resolver(trust)`.
        view: how addresses read: "client", or "peer", as the socket saw it.
        options: those of nserver's transport.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(
        self,
        address: str,
        port: int,
        *,
        resolver: Resolver | None = None,
        trust: str | Iterable[str] | None = None,
        view: View = "client",
        **options: Any,
    ) -> None:
        super().__init__(address, port, **options)
        try:
            self.socket = Socket.from_socket(self.socket, resolver=resolver, trust=trust, view=view)
        except BaseException:
            self.socket.close()
            raise

    def receive_message(self) -> _transports.MessageContainer | None:
        """Return the next query, or None if none came in time.

        Raises:
            InvalidMessageError: it is none, or its client is unknown and must not be.
        """
        try:
            data, addr = self.socket.recvfrom(_LARGEST)
        except TimeoutError:
            return None
        except UnknownClientError as unknown:
            raise InvalidMessageError(unknown, b"", unknown.peer) from unknown
        except OSError as failure:
            if failure.errno in _OF_OTHERS:
                return None
            raise
        if not data:
            return None
        try:
            message = _transports.MessageContainer(
                data, self, _transports.UDPMessageData(addr), addr
            )
        except Exception as wrong:
            # More than dnslib's own errors: whatever parsing hostile bytes ends in.
            cause = wrong.__cause__ if isinstance(wrong, InvalidMessageError) else wrong
            raise InvalidMessageError(
                cause if isinstance(cause, Exception) else wrong, data[:_LOGGED], addr
            ) from wrong
        if not _can_be_repeated(message.message):
            raise InvalidMessageError(ValueError("name too long"), data[:_LOGGED], addr)
        message.message.client_address = addr
        return message

    def send_message_response(self, message: _transports.MessageContainer) -> None:
        """Answer a query, through the peer that it came from."""
        try:
            super().send_message_response(message)
        except OSError as failure:
            # Such as a source port of 0: only who asked misses the answer.
            self.warning(f"no answer to {message.remote_client}: {failure}")


class UDPv6Transport(UDPv4Transport, _transports.UDPv6Transport):
    """A UDPv4Transport on an IPv6 socket."""


class _ActingServer:
    """A server of nserver's that processes each request in the name of its client."""

    def __init__(self, server: RawNameServer) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def __repr__(self) -> str:
        return repr(self._server)

    def process_request(self, request: Any) -> Any:
        with acting_as(request.client_address):
            return self._server.process_request(request)


def _check(transport: object) -> None:
    """Refuse what does not know clients."""
    if not isinstance(transport, UDPv4Transport):
        raise ConfigurationError(
            f"transport: {type(transport).__name__} does not know clients: use "
            "uoa.nserver.UDPv4Transport or UDPv6Transport, or an application of nserver's own"
        )


class DirectApplication(_applications.DirectApplication):
    """The DirectApplication of nserver, below which `uoa.current()` is the client.

    Args:
        server: as in nserver.
        transport: one of this module.

    Raises:
        ConfigurationError: the transport is another one.
    """

    def __init__(self, server: NameServer | RawNameServer, transport: UDPv4Transport) -> None:
        _check(transport)
        super().__init__(server, transport)
        self.server = _ActingServer(self.server)  # type: ignore[assignment]


class ThreadsApplication(_applications.ThreadsApplication):
    """The ThreadsApplication of nserver, in whose workers `uoa.current()` is the client.

    Args:
        server: as in nserver.
        transport: one of this module.
        workers: as in nserver.

    Raises:
        ConfigurationError: the transport is another one.
    """

    # nserver queues 100,000 messages of up to 64 KiB; more than these wait in the kernel.
    QUEUE_MAX_SIZE = 1024

    def __init__(
        self,
        server: NameServer | RawNameServer,
        transport: UDPv4Transport,
        workers: int | None = None,
    ) -> None:
        _check(transport)
        super().__init__(server, transport, workers)
        self.server = _ActingServer(self.server)  # type: ignore[assignment]

    def run(self) -> int:
        """Serve until interrupted; return the exit status."""
        try:
            return super().run()
        finally:
            # Interrupted before nserver waits for that, its threads would never end.
            self.shutdown_server = True
