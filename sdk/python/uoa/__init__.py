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

Modules named after a framework (`uoa.asyncio`) load when they are first used.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from uoa._client import Addr, Client
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
from uoa._resolver import Resolver
from uoa._version import __version__

if TYPE_CHECKING:
    from uoa import asyncio as asyncio
    from uoa import wire as wire

__all__ = [
    "Addr",
    "BackendError",
    "Client",
    "ClosedError",
    "ConfigurationError",
    "Resolver",
    "TrustError",
    "TrustWarning",
    "UOAError",
    "UnknownClientError",
    "WireError",
    "__version__",
]

_MODULES = frozenset({"asyncio", "wire"})


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _import_module(f"uoa.{name}")
    raise AttributeError(f"module 'uoa' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
