# SPDX-License-Identifier: MIT
"""The resolver: who sent a datagram, whichever way the address travelled."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Literal

from uoa import _dialects, _trust
from uoa._address import from_native, host_and_port, to_native
from uoa._client import Addr, Client, Route, client_of, names, native_client
from uoa._errors_from_c import check
from uoa._exceptions import BackendError, ClosedError, ConfigurationError, UnknownClientError
from uoa._native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Missing = Literal["peer", "drop", "raise"]

BACKENDS = ("cmsg", "proxy", "sockopt")
_POLICIES = {"replace": lib.UOA_POLICY_REPLACE, "pin": lib.UOA_POLICY_PIN}
_MISSING = ("peer", "drop", "raise")
_COUNTERS = tuple(name for name in names(lib.uoa_counter_name) if name)
_DEFAULT_DIALECTS = {"cmsg": ("ipo",), "proxy": ("ppv2",), "sockopt": ("ipo",)}
_OPTIONS = frozenset({"ipo", "bd"})
_READABLE = {
    "cmsg": _OPTIONS,
    "proxy": _dialects.PAYLOAD,
    "sockopt": frozenset(_dialects.SWITCHES) - _dialects.PAYLOAD,
}
_NATIVE_BACKENDS = {
    "cmsg": lib.UOA_BACKEND_CMSG,
    "proxy": lib.UOA_BACKEND_PROXY,
    "sockopt": lib.UOA_BACKEND_SOCKOPT,
}
_NOBODY_ANSWERS = (
    "nobody answers getsockopt() requests 2051 or 2048 on this socket: load a module or a "
    "program that does"
)

_log = logging.getLogger("uoa")

# Said once a resolver, when the first of its kind is counted.
_ADVICE = {
    "malformed": "a claim from a trusted peer breaks a rule: see `uoa decode`, and what sends it",
    "checksum": "a PROXY header from a trusted peer fails its checksum",
    "invalid_addr": "a trusted peer claims an address that can be no client",
    "conflict": "a datagram from a trusted peer makes two claims that disagree: a client may be "
    "sending an option of its own through the balancer",
    "unsupported": "a trusted peer sends PROXY headers that name no UDP client",
    "untrusted": "a sender outside `trust` makes claims, which are ignored: if it is your "
    "balancer, add it to `trust`",
    "changed": "a balancer reused a port for another client, or a client forges claims: whether "
    'policy="pin" fits is told in docs/threat-model.md',
    "evicted": "the flow table is full: raise max_flows",
    "ambiguous": "several clients match a lookup: say which local address it is about",
    "receive_drops": "the socket's receive buffer was full: raise SO_RCVBUF, or answer faster",
    "control_truncated": "ancillary data was cut: the kernel had more than fits",
    "payload_truncated": "a datagram was longer than its buffer",
}


def _check_dialects(backend: str, dialects: tuple[str, ...]) -> None:
    """Refuse dialects that the backend cannot read."""
    unreadable = sorted(set(dialects) - _READABLE[backend])
    if unreadable:
        raise ConfigurationError(
            f"dialects: backend {backend!r} cannot read {', '.join(unreadable)}: it reads "
            f"{', '.join(sorted(_READABLE[backend]))}"
        )


def _pick_backend(backend: str, dialects: tuple[str, ...] | None) -> str:
    """Return the backend that is asked for, or that `auto` would take for our own endpoints."""
    if backend not in ("auto", *BACKENDS):
        raise ConfigurationError(f"backend: {backend!r} is none of auto, {', '.join(BACKENDS)}")
    wanted = set(dialects or ())
    if wanted & _dialects.PAYLOAD and wanted - _dialects.PAYLOAD:
        raise ConfigurationError(
            f"dialects: {', '.join(sorted(wanted))}: options and payload headers in one "
            "resolver: use one resolver a port, with the dialect that its balancer sends"
        )
    if backend == "auto":
        if wanted & _dialects.PAYLOAD:
            return "proxy"
        return "cmsg" if wanted <= _OPTIONS else "sockopt"
    _check_dialects(backend, dialects or ())
    return backend


# A child of fork() gets a copy of each table, and must not get it half-changed, or
# with a lock that a thread held which the child does not have.
_tables: weakref.WeakSet[Any] = weakref.WeakSet()
_tables_lock = threading.Lock()
_decision = threading.Lock()  # what `auto` means, of all resolvers
_held: list[Any] = []


def _before_fork() -> None:
    _decision.acquire()
    _tables_lock.acquire()
    _held.extend(_tables)
    for table in _held:
        lib.uoa_resolver_hold(table)


def _after_fork() -> None:
    while _held:
        lib.uoa_resolver_release(_held.pop())
    _tables_lock.release()
    _decision.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class Resolver:
    """Knows who sent a datagram: trust, the parser and the table of flows.

    It does no I/O; endpoints and sockets use it. One resolver may serve several
    sockets and threads. Its memory is bounded by `max_flows`.

    Args:
        trust: the balancers, as prefixes: a list, or one comma-separated string.
            None reads the environment variable UOA_TRUST. `[]` trusts nobody, so
            that every sender is a direct client; `"*"` trusts everybody and warns.
        backend: "cmsg" reads options from ancillary data, "proxy" headers from
            the payload, "sockopt" asks the kernel, where a module or program
            keeps the table. "auto" decides once, when the resolver meets its
            first socket: proxy if `dialects` names a payload dialect; cmsg if
            our code reads the socket and `dialects` has options only; sockopt if
            the kernel answers.
        dialects: the formats to read, of "ipo", "bd" (cmsg, sockopt), "opp"
            (sockopt), "ppv2", "spp" (proxy). Enable only what your balancer
            sends. Default: "ipo", for proxy "ppv2".
        missing: what an endpoint does with a datagram whose client is unknown:
            "peer" delivers it with the peer's address, "drop" counts and drops
            it (a balancer's own health checks too), "raise" reports an
            UnknownClientError.
        policy: "replace" lets a newer claim replace a flow's client, as balancers
            that reuse ports need; "pin" keeps the first while the flow is active
            (for cmsg, and for proxy with `once`; elsewhere each datagram speaks
            for itself, or the kernel decides).
        max_flows: how many flows are remembered; the least recently used leave.
        ttl: seconds after which a flow without datagrams is forgotten.
        max_age: seconds after which any flow is forgotten; None: never.
        once: the balancer writes PROXY v2 in front of a flow's first datagrams
            only, so that the later ones are the same client's. Never for a
            balancer that sends several clients' datagrams from one port.

    Raises:
        TrustError: no trust, or a malformed prefix.
        ConfigurationError: another argument is wrong.
    """

    def __init__(
        self,
        trust: str | Iterable[str] | None = None,
        backend: str = "auto",
        dialects: str | Iterable[str] | None = None,
        missing: Missing = "peer",
        policy: Literal["replace", "pin"] = "replace",
        max_flows: int = 262_144,
        ttl: float = 360.0,
        max_age: float | None = None,
        once: bool = False,
    ) -> None:
        """Take the arguments; see the class."""
        chosen = None if dialects is None else _dialects.parse(dialects)
        self.backend = _pick_backend(backend, chosen)
        self.dialects = chosen if chosen is not None else _DEFAULT_DIALECTS[self.backend]
        if missing not in _MISSING:
            raise ConfigurationError(f"missing: {missing!r} is none of {', '.join(_MISSING)}")
        if policy not in _POLICIES:
            raise ConfigurationError(f"policy: {policy!r} is none of {', '.join(_POLICIES)}")
        if once and "ppv2" not in self.dialects:
            raise ConfigurationError(
                f"once: {', '.join(self.dialects)}: only ppv2 has flows whose header comes once"
            )
        self._policy = policy
        self._check_policy(self.backend, once)
        if not 1 <= max_flows <= 1 << 28:
            raise ConfigurationError(f"max_flows: {max_flows} is not between 1 and {1 << 28}")
        for name, seconds in (("ttl", ttl), ("max_age", max_age)):
            if seconds is not None and not 0 < seconds < 1e9:
                raise ConfigurationError(f"{name}: {seconds} is no number of seconds above 0")
        self.missing: Missing = missing
        self.trust = _trust.prefixes(trust)
        config = {
            "switches": _dialects.bits(self.dialects),
            "policy": _POLICIES[policy],
            "max_flows": max_flows,
            "once": once,
            "ttl": int(ttl * 1e9),
            "max_age": int(max_age * 1e9) if max_age else 0,
        }
        out = ffi.new("struct uoa_resolver **")
        check(lib.uoa_resolver_new(out, ffi.new("struct uoa_config *", config)), "resolver")
        self._native: Any = ffi.gc(out[0], lib.uoa_resolver_free)
        with _tables_lock:
            _tables.add(self._native)
        self._is_decided = backend != "auto" or self.backend == "proxy"
        lib.uoa_resolver_set_trust(self._native, _trust.new_set(self.trust))
        self._dropped = 0

    def _check_policy(self, backend: str, once: bool = False) -> None:
        if self._policy == "pin" and backend == "proxy" and not once:
            raise ConfigurationError(
                "policy: 'pin' keeps the first claim of a flow, but behind a PROXY header each "
                "datagram speaks for itself: leave it at 'replace', or say once=True"
            )
        if self._policy == "pin" and backend == "sockopt":
            raise ConfigurationError(
                "policy: 'pin' keeps the first claim of a flow, but with backend 'sockopt' the "
                "kernel keeps the flows: set the policy there"
            )

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends at work, the one that decides first.

        Before `auto` has met a socket: the one it takes for our own endpoints.
        """
        return (self.backend,)

    @property
    def native_backend(self) -> int:
        """The `enum uoa_backend`, for the sockets of this package."""
        return _NATIVE_BACKENDS[self.backend]

    def meet(self, sock: Any, *, reads: bool) -> Any:
        """Decide `auto`, the first time, and say whether the backend works with this socket.

        `reads`: our own code reads the socket, so that it sees ancillary data.
        Returns an opaque value: the `asker` of resolve(), for this socket.

        Raises:
            ConfigurationError: the backend needs to read the socket.
            BackendError: the kernel does not answer; with auto, what was tried.
        """
        asker = ffi.new("struct uoa_asker *")
        with _decision:
            if not self._is_decided:
                self.backend = self._decide(sock, reads, asker)
                self._is_decided = True
                self._check_policy(self.backend)
        if self.backend == "cmsg" and not reads:
            raise ConfigurationError(
                "backend: 'cmsg' reads ancillary data, which this transport does not hand over: "
                "use uoa.asyncio.create_datagram_endpoint() or uoa.Socket, or a backend that "
                "needs none (proxy, sockopt)"
            )
        if self.backend != "sockopt":
            return ffi.NULL
        result = lib.uoa_asker_init(asker, sock.fileno())
        if result == -errno.ENOPROTOOPT:
            raise BackendError(errno.ENOPROTOOPT, f"backend 'sockopt': {_NOBODY_ANSWERS}")
        check(result, "socket")
        return asker

    def _decide(self, sock: Any, reads: bool, asker: Any) -> str:
        """Return the backend that `auto` means for a socket."""
        if reads and set(self.dialects) <= _OPTIONS:
            return "cmsg"
        result = lib.uoa_asker_init(asker, sock.fileno())
        if result == -errno.ENOPROTOOPT:
            options = "needs a socket that uoa reads" if not reads else "cannot read opp"
            raise BackendError(
                errno.ENOPROTOOPT,
                "backend 'auto': nothing works with this socket: proxy: dialects names neither "
                f"ppv2 nor spp; cmsg: {options}; sockopt: {_NOBODY_ANSWERS}",
            )
        check(result, "socket")
        return "sockopt"

    @property
    def native(self) -> Any:
        """The `struct uoa_resolver *`, for the endpoints of this package."""
        if self._native is None:
            raise ClosedError("resolver: it was closed")
        return self._native

    def resolve(
        self,
        peer: Sequence[Any],
        data: bytes,
        ancdata: Iterable[tuple[int, int, bytes]] = (),
        flags: int = 0,
        *,
        local: Sequence[Any] | None = None,
        asker: Any = ffi.NULL,
    ) -> tuple[Client, bytes]:
        """Return who sent a datagram, and its payload without any header.

        The arguments are what `socket.recvmsg()` returns; `local` is the address
        the datagram arrived at, if the socket is bound to one; `asker` is what
        meet() returned for the socket, which backend "sockopt" needs.

        Raises:
            UnknownClientError: the client is not known, and `missing` is "raise".
        """
        evidence = ffi.new("struct uoa_evidence *")
        to_native(peer, evidence.peer)
        if local is not None:
            to_native(local, evidence.local)
        payload = ffi.from_buffer(data)
        evidence.asker = asker
        evidence.payload = ffi.cast("uint8_t *", payload)
        evidence.payload_len = len(data)
        evidence.control_truncated = flags & socket.MSG_CTRUNC != 0
        kept = [payload]
        for level, kind, item in ancdata:
            kept.append(ffi.from_buffer(item))
            lib.uoa_evidence_control(evidence, level, kind, kept[-1], len(item))
        native = ffi.new("struct uoa_client *")
        strip = lib.uoa_resolve(self.native, evidence, time.monotonic_ns(), native)
        self.log_news()
        client = client_of(native)
        if self.missing == "raise" and client.source == "none":
            raise UnknownClientError(client.peer)
        return client, data[strip:]

    def lookup(
        self,
        peer: Sequence[Any],
        local: Sequence[Any] | None = None,
        sock: socket.socket | None = None,
    ) -> Client | None:
        """Return who is behind `peer` now, as the table of flows knows it, or None.

        The table holds flows of trusted peers only. `sock` is the server's
        socket: its own address is `local`, if that is not given. Without a local
        host the answer is None also when several clients match, which is counted
        `ambiguous`. With backend "sockopt" the kernel is asked through `sock`.

        Raises:
            BackendError: the kernel does not answer on that socket.
        """
        native = ffi.new("struct uoa_client *")
        key = (to_native(peer), ffi.new("struct uoa_addr *"))
        if local is None and sock is not None:
            local = sock.getsockname()
        if local is not None:
            to_native(local, key[1])
        asker = ffi.NULL
        if sock is not None and (self.backend == "sockopt" or not self._is_decided):
            asker = self.meet(sock, reads=False)
        result = lib.uoa_lookup(self.native, asker, *key, time.monotonic_ns(), native)
        return client_of(native) if result == 0 else None

    def leads_back(self, addr: Addr, *, table: bool) -> bool:
        """Return whether route() of an Addr is the peer it came from, without any header.

        For the sockets of this package: it mostly is, and need not be built then.
        """
        native = self.native if table else ffi.NULL
        return bool(lib.uoa_way_is_own(native, addr.native, time.monotonic_ns()))

    def route(
        self,
        address: Addr | Client | Sequence[Any],
        local: Sequence[Any] | None = None,
        *,
        table: bool = True,
    ) -> Route:
        """Return where a reply to `address` goes, for a socket that is not ours.

        An Addr or a Client is answered through the peer it came from, or through
        a newer one if the balancer has moved it since; a plain (host, port)
        through the peer that named it as its client last, else directly. `local`
        is the socket's own address. With `table` false it is always the peer it
        came from.
        """
        route = ffi.new("struct uoa_route *")
        now = time.monotonic_ns()
        if isinstance(address, (Addr, Client)):
            native = address.native if isinstance(address, Addr) else native_client(address)
            lib.uoa_route(self.native if table else ffi.NULL, native, now, route)
        elif table:
            port = local[1] if local is not None else 0
            lib.uoa_route_plain(self.native, to_native(address), port, now, route)
        else:
            to_native(address, route.to)
        header = bytes(ffi.buffer(route.header, route.header_len))
        return Route(host_and_port(route.to), from_native(getattr(route, "from")), header)

    def set_trust(self, trust: str | Iterable[str]) -> None:
        """Replace the trusted prefixes, while traffic goes on.

        Raises:
            TrustError: a prefix is malformed; the set stays as it was.
        """
        items = _trust.prefixes(trust)
        lib.uoa_resolver_set_trust(self.native, _trust.new_set(items))
        self.trust = items

    def trusts(self, peer: Sequence[Any]) -> bool:
        """Return whether a peer is a balancer, whose claims are believed, and not a client."""
        return bool(lib.uoa_resolver_trusts(self.native, to_native(peer).host))

    def stats(self) -> dict[str, int]:
        """Return all counters by name, and the number of live `flows`."""
        values = ffi.new("uint64_t[]", len(_COUNTERS))
        flows = lib.uoa_resolver_counters(self.native, values)
        counters: dict[str, int] = dict(
            zip(_COUNTERS, ffi.unpack(values, len(_COUNTERS)), strict=True)
        )
        return {"flows": flows, "dropped": self._dropped, **counters}

    def close(self) -> None:
        """Give the table up. It lives on in endpoints that use it, which report ClosedError."""
        self._native = None

    def count_dropped(self, count: int) -> None:
        """Count datagrams that an endpoint dropped, because `missing` says so."""
        self._dropped += count

    def log_news(self) -> None:
        """Log what was counted for the first time, with the way out."""
        news = lib.uoa_resolver_news(self.native)
        if news:
            for number, name in enumerate(_COUNTERS):
                if news >> number & 1 and name in _ADVICE:
                    _log.warning("%s: %s (said once; later ones are counted)", name, _ADVICE[name])
