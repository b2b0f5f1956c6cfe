# SPDX-License-Identifier: MIT
"""The client's address of every UDP datagram behind a full-NAT load balancer.

The `peer` is who physically sent a datagram: a balancer, or the client itself.
Replies go to the peer. The `client` is who the traffic came from. `trust` names
the balancers whose claims about clients are believed; nobody is by default.

    import asyncio, uoa

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, addr):
            print("client", addr.client.host, "via", addr.peer)
            self.transport.sendto(data, addr)

    asyncio.run(uoa.asyncio.serve(Echo, "0.0.0.0", 9999, trust=["10.0.0.0/24"]))

Modules named after a framework (`uoa.asyncio`, `uoa.dnslib`, …) load when they are
first used, and so do `uoa.middleware`, `uoa.testing` and `uoa.wire`.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from uoa._client import Addr, Client, Route
from uoa._context import current
from uoa._exceptions import (
    BackendError,
    ClosedError,
    ConfigurationError,
    TrustError,
    TrustWarning,
    UnknownClientError,
    UOAError,
    WireError,
)
from uoa._real_client import real_client
from uoa._resolver import Resolver
from uoa._socket import Socket
from uoa._version import __version__

if TYPE_CHECKING:
    from uoa import aioquic as aioquic
    from uoa import asyncio as asyncio
    from uoa import dnslib as dnslib
    from uoa import hypercorn as hypercorn
    from uoa import middleware as middleware
    from uoa import nserver as nserver
    from uoa import socketserver as socketserver
    from uoa import syslog as syslog
    from uoa import testing as testing
    from uoa import wire as wire
    from uoa._wrap import wrap as wrap

__all__ = [
    "Addr",
    "BackendError",
    "Client",
    "ClosedError",
    "ConfigurationError",
    "Resolver",
    "Route",
    "Socket",
    "TrustError",
    "TrustWarning",
    "UOAError",
    "UnknownClientError",
    "WireError",
    "__version__",
    "current",
    "real_client",
    "wrap",
]

_MODULES = frozenset(
    {
        "aioquic",
        "asyncio",
        "dnslib",
        "hypercorn",
        "middleware",
        "nserver",
        "socketserver",
        "syslog",
        "testing",
        "wire",
    }
)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _import_module(f"uoa.{name}")
    if name == "wrap":  # its module imports asyncio
        return _import_module("uoa._wrap").wrap
    raise AttributeError(f"module 'uoa' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, "wrap"])
