# SPDX-License-Identifier: MIT
"""The UDP servers of the standard library's `socketserver`, whose handlers see the client.

A handler's `client_address` is an `Addr`: it reads as the client, and sending to
it answers through the balancer. `uoa.current()` is set while a handler runs, in
the thread or process that it runs in.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import TYPE_CHECKING, Any

from uoa._arguments import check_view, choose_resolver
from uoa._context import acting_as
from uoa._exceptions import UnknownClientError
from uoa._socket import Socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uoa._client import Addr, Client, View
    from uoa._resolver import Resolver

__all__ = [
    "DatagramHandler",
    "ForkingUDPServer",
    "ThreadingMixIn",
    "ThreadingUDPServer",
    "UDPServer",
]

_WAIT = 0.1  # seconds between looks at whether to stop


class UDPServer(socketserver.UDPServer):
    """The standard library's UDP server, on a `uoa.Socket`.

    Datagrams are never cut, and an IPv6 address makes an IPv6 socket. With
    missing="raise" a datagram of an unknown client goes to handle_error(), and
    serving goes on.

    Args:
        server_address: as in the standard library.
        RequestHandlerClass: as in the standard library; any of its handlers will do.
        bind_and_activate: as in the standard library.
        resolver: who resolves; it stays open when the server closes.
        trust: a shorthand for `resolver=Resolver(trust)`.
        view: how `client_address` reads: "client", or "peer", as the socket saw it.

    Raises:
        ConfigurationError: an argument is wrong.
        BackendError: the backend cannot work; its text says why.
    """

    max_packet_size = 65535

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
        self.resolver = choose_resolver(resolver, trust)
        if ":" in server_address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(server_address, RequestHandlerClass, bind_and_activate=False)
        try:
            self.socket = Socket.from_socket(self.socket, resolver=self.resolver, view=view)
            if bind_and_activate:
                self.server_bind()
                self.server_activate()
        except BaseException:
            self.server_close()
            raise

    def get_request(self) -> tuple[Any, Any]:
        """Return the datagram that is there, if its client is one to serve."""
        try:
            # Not waiting: what was there may be dropped, and shutdown() has to come through.
            data, addr = self.socket.recvfrom(self.max_packet_size, socket.MSG_DONTWAIT)
        except UnknownClientError as error:
            self.handle_error((b"", self.socket), error.peer)
            raise  # It is an OSError: serve_forever() takes the next.
        return (data, self.socket), addr

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Run a handler; meanwhile `uoa.current()` is its client."""
        with acting_as(client_address):
            super().finish_request(request, client_address)


class ThreadingMixIn(socketserver.ThreadingMixIn):
    """The standard library's mix-in, with a ceiling.

    When `max_threads` handlers are at work the next request waits for one of them
    to end, and what comes meanwhile waits in the socket's buffer, where the kernel
    bounds it and counts what is lost: a flood makes no threads without number.
    """

    max_threads = 256

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._room = threading.Semaphore(self.max_threads)
        self._is_stopping = False
        super().__init__(*arguments, **keywords)

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Handle requests until shutdown()."""
        self._is_stopping = False
        super().serve_forever(poll_interval)  # type: ignore[misc]

    def shutdown(self) -> None:
        """Stop serving; a request that waits for a thread is given up."""
        self._is_stopping = True
        super().shutdown()  # type: ignore[misc]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a request, once there is room for one."""
        while not self._room.acquire(timeout=_WAIT):
            if self._is_stopping:
                self.shutdown_request(request)  # type: ignore[attr-defined]
                return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle a request, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()


class ThreadingUDPServer(ThreadingMixIn, UDPServer):
    """A UDPServer that handles each datagram in a thread of its own, up to `max_threads`."""


class ForkingUDPServer(socketserver.ForkingMixIn, UDPServer):
    """A UDPServer that handles each datagram in a process of its own."""


class DatagramHandler(socketserver.BaseRequestHandler):
    """A handler of these servers, for type checkers, and with `client`.

    `request` is (payload, socket), as in the standard library.
    """

    request: tuple[bytes, Socket]
    client_address: Addr

    @property
    def client(self) -> Client:
        """Who the datagram came from, and how that is known."""
        return self.client_address.client
