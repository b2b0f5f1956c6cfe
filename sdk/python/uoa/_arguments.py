# SPDX-License-Identifier: MIT
"""What everything that serves a socket takes: `resolver=`, `trust=`, `view=`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uoa._exceptions import ConfigurationError
from uoa._resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from uoa._client import Addr, Client, Route, View


def choose_resolver(resolver: Resolver | None, trust: str | Iterable[str] | None) -> Resolver:
    """Return the resolver that is given, or one of its own for `trust`.

    Raises:
        TrustError: no trust, or a malformed prefix.
        ConfigurationError: both are given.
    """
    if resolver is None:
        return Resolver(trust)
    if trust is not None:
        raise ConfigurationError("trust: the resolver has its own: give one of the two")
    return resolver


def check_view(view: View) -> None:
    """Refuse what is no view."""
    if view not in ("client", "peer"):
        raise ConfigurationError(f'view: {view!r} is neither "client" nor "peer"')


def route_to(
    resolver: Resolver, view: View, address: Addr | Client | Sequence[Any], local: Sequence[Any]
) -> Route | None:
    """Return where a datagram for `address` goes, or None: where `address` says.

    In the peer view addresses are peers', and no claim may lead them elsewhere.
    """
    try:
        return resolver.route(address, local, table=view == "client")
    except ConfigurationError:
        return None  # A name, which the socket looks up.
