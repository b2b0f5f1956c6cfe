# SPDX-License-Identifier: MIT
"""QuicAdapter: from what a server put into the scope to what an application reads there."""

from __future__ import annotations

import logging
import socket
import weakref
from typing import TYPE_CHECKING, Any

from uoa._address import host_and_port, to_native
from uoa._client import Addr, Client, addr_from
from uoa._context import acting_as
from uoa._exceptions import BackendError, ConfigurationError, UnknownClientError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence

    from uoa._resolver import Resolver

    # Frameworks and servers have types of their own for the three, which are not each other's.
    App = Callable[[Any, Any, Any], Awaitable[None]]
    Scope = MutableMapping[str, Any]

_TYPES = ("http", "websocket", "webtransport")
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1

_log = logging.getLogger("uoa")


class QuicAdapter:
    """ASGI middleware that shows applications the client: in `scope["client"]`, in the extensions.

    What it finds depends on the server. `uoa.hypercorn` puts an `Addr` there, which has
    the client already. Any other server puts the peer there; then, with `resolver`, the
    client of an HTTP/3 request is looked up: in the kernel, or in the table of an endpoint
    of this process that has the same resolver. Either way `scope["client"]` has exactly
    two items, `scope["extensions"]["uoa"]` has the facts as plain values, and
    `uoa.current()` is the client while the application runs, in its tasks and worker
    threads too.

    It must be the **outermost** middleware: one that believes X-Forwarded-For and runs
    before it believes it of a client, if it takes the balancer for a proxy.

    Args:
        app: the application.
        resolver: who looks the client up, where the server does not tell it. Its
            `missing` says what becomes of the request of an unknown client: "peer"
            shows it with the peer's address, "drop" answers 403 or closes with 1008,
            "raise" raises UnknownClientError.
        emit_headers: replace X-Forwarded-* and Forwarded, whoever sent them, by
            headers that name the client, for applications that read nothing else.
        emit_state: set `scope["state"]["real_client"]` to the `Client`, for
            `request.state.real_client`.

    Raises:
        BackendError: the resolver has to ask the kernel, and it does not answer.
    """

    def __init__(
        self,
        app: App,
        resolver: Resolver | None = None,
        *,
        emit_headers: bool = False,
        emit_state: bool = False,
    ) -> None:
        self.app = app
        self._resolver = resolver
        self._emit_headers = emit_headers
        self._emit_state = emit_state
        self._sock = None if resolver is None else _asking_socket(resolver)
        if self._sock is not None:
            # ASGI tells a middleware of no end of its own.
            weakref.finalize(self, self._sock.close)
        self._has_complained = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application, with a scope of its own that shows the client."""
        if scope["type"] not in _TYPES:
            await self.app(scope, receive, send)
            return
        known = self._who(scope)
        seen = {**scope, "client": _pair(scope.get("client")) if known is None else known}
        if self._emit_headers:
            seen["headers"] = _headers(scope.get("headers") or (), seen["client"])
        if known is None:
            await self.app(seen, receive, send)
            return
        if self._is_refused(scope, known.client):
            await _refuse(scope["type"], send)
            return
        seen["extensions"] = {**(scope.get("extensions") or {}), "uoa": _facts(known.client)}
        if self._emit_state:
            seen["state"] = {**(scope.get("state") or {}), "real_client": known.client}
        with acting_as(known):
            await self.app(seen, receive, send)

    # ---- Who it is -------------------------------------------------------------

    def _who(self, scope: Scope) -> Addr | None:
        """Return the client, known or not; None where there is nobody to ask."""
        found = scope.get("client")
        if isinstance(found, Addr):
            client = found.client
        else:
            # HTTP/1 and 2 are TCP, whose ports have nothing to do with those of UDP.
            is_http3 = str(scope.get("http_version")).startswith("3")
            peer = _address(found)
            if self._resolver is None or not is_http3 or peer is None:
                return None
            client = self._look_up(self._resolver, peer, _address(scope.get("server")))
        return addr_from(client, "client", is_ipv6_socket=False)

    def _look_up(
        self, resolver: Resolver, peer: tuple[str, int], local: tuple[str, int] | None
    ) -> Client:
        is_bound_to_all = local is not None and local[0] in ("0.0.0.0", "::")
        where = None if is_bound_to_all else local
        if not resolver.trusts(peer):
            return Client(*peer, peer, where, "direct")
        # Flows are known by their local port also where the host is not known.
        key = ("::", local[1]) if local is not None and is_bound_to_all else local
        try:
            found = resolver.lookup(peer, key, self._sock)
        except BackendError as error:
            # It did answer at the start: what did is gone, and may come back.
            if not self._has_complained:
                self._has_complained = True
                _log.warning("QuicAdapter: %s (said once)", error)
            found = None
        return found or Client(*peer, peer, where, "none")

    def _is_refused(self, scope: Scope, client: Client) -> bool:
        """Do what `missing` says about a client that was looked up."""
        resolver = self._resolver
        if resolver is None or client.source != "none" or resolver.missing == "peer":
            return False
        if isinstance(scope.get("client"), Addr):
            return False  # The endpoint has its own resolver, which let it pass.
        resolver.count_dropped(1)
        if resolver.missing == "raise":
            raise UnknownClientError(client.peer)
        return True


def _asking_socket(resolver: Resolver) -> socket.socket | None:
    """Return a socket through which the kernel is asked, or None if it is not.

    Raises BackendError if it must be, and does not answer.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        resolver.meet(sock, reads=False)
    except (BackendError, ConfigurationError) as error:
        sock.close()
        if resolver.backend == "sockopt":
            raise
        if isinstance(error, BackendError):
            _log.warning(
                "QuicAdapter: clients are known only where an endpoint of this process has the "
                "same resolver: %s",
                error,
            )
        return None
    if resolver.backend != "sockopt":
        sock.close()
        return None
    return sock


# ---- What the application sees -------------------------------------------------------


def _address(found: Sequence[Any] | None) -> tuple[str, int] | None:
    """Return (host, port) of an address of IP; a path or a name is none."""
    try:
        return None if found is None else host_and_port(to_native(found))
    except (ConfigurationError, TypeError, LookupError, OverflowError):
        return None


def _pair(found: Sequence[Any] | None) -> tuple[Any, ...] | None:
    """Return what a server says of a client, in two items."""
    return _address(found) or (None if found is None else tuple(found[:2]))


def _facts(client: Client) -> dict[str, Any]:
    """Return what `scope["extensions"]["uoa"]` says: plain values, since scopes are copied."""
    return {
        "peer": [*client.peer],
        "client": [client.host, client.port],
        "source": client.source,
        "resolved": client.resolved,
    }


def _headers(
    headers: Iterable[Sequence[bytes]], client: tuple[Any, ...] | None
) -> list[tuple[bytes, bytes]]:
    """Return headers that name this client, and no other."""
    kept = [(name, value) for name, value in headers if not _is_forwarded(name)]
    address = _address(client)
    if address is None or (isinstance(client, Addr) and client.client.source == "none"):
        return [*kept, (b"forwarded", b"for=unknown")]
    # A scope's number means something on this machine only.
    host, port = address[0].partition("%")[0], address[1]
    node = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return [
        *kept,
        (b"x-forwarded-for", host.encode()),
        (b"x-forwarded-port", str(port).encode()),
        (b"forwarded", f'for="{node}"'.encode()),
    ]


def _is_forwarded(name: bytes) -> bool:
    # CGI's variables, and so WSGI's, do not tell the two dashes apart.
    plain = name.lower().replace(b"_", b"-")
    return plain == b"forwarded" or plain.startswith(b"x-forwarded-")


async def _refuse(kind: str, send: Any) -> None:
    """Answer in place of the application."""
    if kind != "http":
        await send({"type": f"{kind}.close", "code": _POLICY_VIOLATION})
        return
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
