# SPDX-License-Identifier: MIT
"""Dialects by name, and which backend can read which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uoa._client import names
from uoa._exceptions import ConfigurationError
from uoa._native import lib

if TYPE_CHECKING:
    from collections.abc import Iterable

SWITCHES = tuple(name for name in names(lib.uoa_switch_name) if name)
PAYLOAD = frozenset({"ppv2", "spp"})


def parse(dialects: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names in `dialects`, a comma-separated string or an iterable."""
    items = dialects.split(",") if isinstance(dialects, str) else dialects
    items = [item.strip() for item in items]
    for item in items:
        if item not in SWITCHES:
            raise ConfigurationError(
                f"dialects: {item!r} is none of {', '.join(SWITCHES)}: "
                "enable what your balancer sends"
            )
    return tuple(dict.fromkeys(items))


def bits(dialects: Iterable[str]) -> int:
    """Return the switches of libuoa for names that parse() took."""
    value = 0
    for name in dialects:
        value |= lib.uoa_switch_bit(name.encode())
    return value
