# SPDX-License-Identifier: MIT
"""HOST:PORT on the command line, IPv6 hosts in brackets."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from uoa._address import pack_host
from uoa._exceptions import ConfigurationError


def parse(text: str) -> tuple[str, int]:
    """Return (host, port); for argparse's `type=`. An empty host is 0.0.0.0."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ArgumentTypeError(f"{text!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ArgumentTypeError(f"{text!r}: write an IPv6 host in brackets, [{host}]:{port}")
    host = host or "0.0.0.0"
    try:
        pack_host(host)
    except ConfigurationError as error:
        raise ArgumentTypeError(str(error)) from None
    return host, int(port)


def text_of(address: tuple[Any, ...]) -> str:
    """Return HOST:PORT of an address tuple."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
