# SPDX-License-Identifier: MIT
"""The resolver: who sent a datagram, whichever way the address travelled."""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING, Any, Literal

from uoa import _dialects, _trust
from uoa._address import to_native
from uoa._client import Client, client_of, names
from uoa._errors_from_c import check
from uoa._exceptions import ClosedError, ConfigurationError, UnknownClientError
from uoa._native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Missing = Literal["peer", "drop", "raise"]

BACKENDS = ("cmsg", "proxy")
_POLICIES = {"replace": lib.UOA_POLICY_REPLACE, "pin": lib.UOA_POLICY_PIN}
_MISSING = ("peer", "drop", "raise")
_COUNTERS = tuple(name for name in names(lib.uoa_counter_name) if name)
_DEFAULT_DIALECTS = {"cmsg": ("ipo",), "proxy": ("ppv2",)}
_READABLE = {"cmsg": frozenset({"ipo", "bd"}), "proxy": _dialects.PAYLOAD}

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
    "changed": "a balancer reused a port for another client, or a client forges claims: "
    'policy="pin" keeps the first',
    "evicted": "the flow table is full: raise max_flows",
    "control_truncated": "ancillary data was cut: the kernel had more than fits",
    "payload_truncated": "a datagram was longer than its buffer",
}


def _pick_backend(backend: str, dialects: tuple[str, ...] | None) -> str:
    """Return the backend that is asked for, or that `auto` finds by the dialects."""
    if backend not in ("auto", *BACKENDS):
        raise ConfigurationError(f"backend: {backend!r} is none of auto, {', '.join(BACKENDS)}")
    wanted = set(dialects or ())
    if wanted & _dialects.PAYLOAD and wanted - _dialects.PAYLOAD:
        raise ConfigurationError(
            f"dialects: {', '.join(sorted(wanted))}: options and payload headers in one "
            "resolver: use one resolver a port, with the dialect that its balancer sends"
        )
    if backend == "auto":
        backend = "proxy" if wanted & _dialects.PAYLOAD else "cmsg"
    unreadable = sorted(wanted - _READABLE[backend])
    if unreadable:
        raise ConfigurationError(
            f"dialects: backend {backend!r} cannot read {', '.join(unreadable)}: it reads "
            f"{', '.join(sorted(_READABLE[backend]))}"
        )
    return backend


class Resolver:
    """Knows who sent a datagram: trust, the parser and the table of flows.

    It does no I/O; endpoints and sockets use it. One resolver may serve several
    sockets and threads. Its memory is bounded by `max_flows`.

    Args:
        trust: the balancers, as prefixes: a list, or one comma-separated string.
            None reads the environment variable UOA_TRUST. `[]` trusts nobody, so
            that every sender is a direct client; `"*"` trusts everybody and warns.
        backend: "cmsg" reads options from ancillary data, "proxy" headers from
            the payload; "auto" decides by `dialects`.
        dialects: the formats to read, of "ipo", "bd" (cmsg), "ppv2", "spp"
            (proxy). Enable only what your balancer sends. Default: "ipo" for
            cmsg, "ppv2" for proxy.
        missing: what an endpoint does with a datagram whose client is unknown:
            "peer" delivers it with the peer's address, "drop" counts and drops
            it (a balancer's own health checks too), "raise" reports an
            UnknownClientError.
        policy: "replace" lets a newer claim replace a flow's client, as balancers
            that reuse ports need; "pin" keeps the first while the flow is active
            (cmsg only: with proxy each datagram speaks for itself).
        max_flows: how many flows are remembered; the least recently used leave.
        ttl: seconds after which a flow without datagrams is forgotten.
        max_age: seconds after which any flow is forgotten; None: never.

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
    ) -> None:
        """Take the arguments; see the class."""
        chosen = None if dialects is None else _dialects.parse(dialects)
        self.backend = _pick_backend(backend, chosen)
        self.dialects = chosen if chosen is not None else _DEFAULT_DIALECTS[self.backend]
        if missing not in _MISSING:
            raise ConfigurationError(f"missing: {missing!r} is none of {', '.join(_MISSING)}")
        if policy not in _POLICIES:
            raise ConfigurationError(f"policy: {policy!r} is none of {', '.join(_POLICIES)}")
        if policy == "pin" and self.backend == "proxy":
            raise ConfigurationError(
                "policy: 'pin' keeps the first claim of a flow, but behind a PROXY header each "
                "datagram speaks for itself: leave it at 'replace'"
            )
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
            "ttl": int(ttl * 1e9),
            "max_age": int(max_age * 1e9) if max_age else 0,
        }
        out = ffi.new("struct uoa_resolver **")
        check(lib.uoa_resolver_new(out, ffi.new("struct uoa_config *", config)), "resolver")
        self._native: Any = ffi.gc(out[0], lib.uoa_resolver_free)
        lib.uoa_resolver_set_trust(self._native, _trust.new_set(self.trust))
        self._dropped = 0

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends at work, the one that decides first."""
        return (self.backend,)

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
    ) -> tuple[Client, bytes]:
        """Return who sent a datagram, and its payload without any header.

        The arguments are what `socket.recvmsg()` returns; `local` is the address
        the datagram arrived at, if the socket is bound to one.

        Raises:
            UnknownClientError: the client is not known, and `missing` is "raise".
        """
        evidence = ffi.new("struct uoa_evidence *")
        to_native(peer, evidence.peer)
        if local is not None:
            to_native(local, evidence.local)
        payload = ffi.from_buffer(data)
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

    def lookup(self, peer: Sequence[Any], local: Sequence[Any] | None = None) -> Client | None:
        """Return who is behind `peer` now, as the table of flows knows it, or None.

        The table holds flows of trusted peers only. Without `local` the answer
        is None also when several clients match, which is counted `ambiguous`.
        """
        native = ffi.new("struct uoa_client *")
        key = (to_native(peer), ffi.new("struct uoa_addr *"))
        if local is not None:
            to_native(local, key[1])
        result = lib.uoa_lookup(self.native, *key, time.monotonic_ns(), native)
        return client_of(native) if result == 0 else None

    def set_trust(self, trust: str | Iterable[str]) -> None:
        """Replace the trusted prefixes, while traffic goes on.

        Raises:
            TrustError: a prefix is malformed; the set stays as it was.
        """
        items = _trust.prefixes(trust)
        lib.uoa_resolver_set_trust(self.native, _trust.new_set(items))
        self.trust = items

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
