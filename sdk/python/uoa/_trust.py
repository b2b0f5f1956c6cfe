# SPDX-License-Identifier: MIT
"""Which senders are believed: from what a user writes to a set in C."""

from __future__ import annotations

import errno
import ipaddress
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from uoa._errors_from_c import check
from uoa._exceptions import TrustError, TrustWarning
from uoa._native import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterable

ENVIRONMENT = "UOA_TRUST"
_EVERYBODY = ("0.0.0.0/0", "::/0")


def _split(trust: str | Iterable[str]) -> list[str]:
    items = [trust] if isinstance(trust, str) else list(trust)
    return [part.strip() for item in items for part in str(item).split(",") if part.strip()]


def _from_environment() -> str:
    value = os.environ.get(ENVIRONMENT)
    if value is None:
        raise TrustError(
            "trust: not given: name the balancers whose claims are believed, "
            f'for example trust=["10.0.0.0/24"], or set {ENVIRONMENT}; '
            "trust=[] believes nobody"
        )
    return value


def _refuse(prefix: str, error: int) -> TrustError:
    if error == -errno.EDOM:
        network = ipaddress.ip_network(prefix, strict=False)
        host = prefix.partition("/")[0]
        return TrustError(
            f"trust: {prefix!r} has bits set behind its prefix length: "
            f"write {network} for the network or {host} for the host"
        )
    return TrustError(f"trust: {prefix!r} is not an IPv4 or IPv6 prefix such as 10.0.0.0/24")


def _warn(text: str) -> None:
    """Warn at the line outside of this package that led here."""
    frame, level = sys._getframe(), 1
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] == "uoa":
        frame, level = frame.f_back, level + 1
    warnings.warn(text, TrustWarning, stacklevel=level)


def prefixes(trust: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the prefixes that a `trust` argument means; None reads UOA_TRUST."""
    items = _split(_from_environment() if trust is None else trust)
    if "*" not in items:
        return tuple(items)
    _warn('trust="*": every sender can claim to be any client; name your balancers instead')
    return _EVERYBODY


def new_set(items: Iterable[str]) -> Any:
    """Return a `struct uoa_trust *` that the caller owns."""
    out = ffi.new("struct uoa_trust **")
    check(lib.uoa_trust_new(out), "trust set")
    for item in items:
        # A NUL would end the text early in C, and hide what stands behind it.
        text = item.replace("\0", "?").encode(errors="replace")
        error = lib.uoa_trust_add(out[0], text)
        if error in (-errno.EINVAL, -errno.EDOM):
            lib.uoa_trust_free(out[0])
            raise _refuse(item, error)
        check(error, "trust set")
    return out[0]
