# SPDX-License-Identifier: MIT
"""What can go wrong, as one tree:

    UOAError
    ├── ConfigurationError (ValueError)   an argument is wrong
    │   └── TrustError                    no trust given, or a malformed prefix
    ├── BackendError (OSError)            a backend cannot work here, or with this socket
    ├── ClosedError (RuntimeError)        a resolver was used after close()
    ├── UnknownClientError (LookupError)  missing="raise", and the client is not known
    └── WireError (ValueError)            no packet can be built from these arguments

    TrustWarning (UserWarning)            trust="*": everybody's claims are believed

What comes from the network never raises: it is an outcome, counted by reason.
"""


class UOAError(Exception):
    """The root of all errors of this package."""


class ConfigurationError(UOAError, ValueError):
    """An argument is wrong; the message names it, its value and the way out."""


class TrustError(ConfigurationError):
    """No trust was given, or one of its prefixes is malformed."""


class BackendError(UOAError, OSError):
    """A backend cannot work here, or not with this socket."""


class ClosedError(UOAError, RuntimeError):
    """A resolver was used after it was closed."""


class UnknownClientError(UOAError, LookupError):
    """A trusted peer sent a datagram without a usable claim, and `missing` is "raise".

    `peer` is the (host, port) that sent it.
    """

    def __init__(self, peer: tuple[str, int]) -> None:
        super().__init__(f"client of a datagram from {peer[0]} port {peer[1]} is not known")
        self.peer = peer


class WireError(UOAError, ValueError):
    """No packet can be built from these arguments."""


class TrustWarning(UserWarning):
    """Everybody is trusted: any sender can claim to be any client."""
