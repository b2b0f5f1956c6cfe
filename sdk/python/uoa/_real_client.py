# SPDX-License-Identifier: MIT
"""The decorator `real_client`: a handler's parameter `client`, filled in."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    TypeVarTuple,
    Unpack,
    overload,
)

from uoa._arguments import check_view, choose_resolver
from uoa._client import Addr, Client, View
from uoa._context import current
from uoa._exceptions import ConfigurationError, UnknownClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uoa._resolver import Resolver

_R = TypeVar("_R")
_P = ParamSpec("_P")
_Ts = TypeVarTuple("_Ts")
_Kept = TypeVar("_Kept", bound="type[Any] | staticmethod[..., Any] | classmethod[Any, ..., Any]")

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class _NoClientError(UnknownClientError):
    """UnknownClientError where there is not even a peer."""

    def __init__(self, name: str) -> None:
        LookupError.__init__(
            self,
            f"{name}(): no client: no argument is or has a uoa.Addr, and uoa.current() is None: "
            "is it called below a handler of an endpoint, socket or server of uoa?",
        )


# ---- What to fill in -----------------------------------------------------------------


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature, annotations evaluated if all can be: in names of the function's module.

    Frameworks that evaluate them themselves would look for the names in this module.
    """
    more: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        more["annotation_format"] = Format.FORWARDREF
    try:
        return inspect.signature(function, eval_str=True, **more)
    except (AttributeError, NameError, SyntaxError, TypeError):
        return inspect.signature(function, **more)  # Some are for type checkers only.


def _is_client(annotation: Any) -> bool:
    """Return whether an annotation says `Client`, perhaps as a string, perhaps optional."""
    text = getattr(annotation, "__forward_arg__", annotation)
    if isinstance(text, str):
        return not {part.strip() for part in text.split("|")}.isdisjoint({"Client", "uoa.Client"})
    return annotation is Client or Client in getattr(annotation, "__args__", ())


def _parameter(function: Callable[..., Any], signature: inspect.Signature) -> inspect.Parameter:
    """Return the parameter to fill in: the one named `client`, else the one annotated so."""
    parameters = [p for p in signature.parameters.values() if p.kind not in _VARIADIC]
    found = [p for p in parameters if p.name == "client"]
    found = found or [p for p in parameters if _is_client(p.annotation)]
    if len(found) != 1:
        wrong = "several parameters are" if found else "no parameter is named `client` or"
        raise ConfigurationError(
            f"real_client: {_name(function)}(): {wrong} annotated uoa.Client: name the one to "
            "fill in `client`"
        )
    return found[0]


def takes_client(function: Callable[..., Any]) -> bool:
    """Return whether a callable has a parameter for real_client() to fill in."""
    parameters = _signature(function).parameters.values()
    return any(
        p.kind not in _VARIADIC and (p.name == "client" or _is_client(p.annotation))
        for p in parameters
    )


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", repr(function))


# ---- Where to find it ----------------------------------------------------------------


def _of_handler(handler: Any) -> Addr | None:
    """Return the address that a handler or request object carries, if it is one of ours."""
    found = getattr(handler, "client_address", None)
    if isinstance(found, Addr):
        return found
    found = getattr(handler, "remote", None)
    found = getattr(found, "sockaddr", found)
    if isinstance(found, Addr):
        return found
    scope = getattr(handler, "scope", None)
    found = scope.get("client") if isinstance(scope, dict) else None
    return found if isinstance(found, Addr) else None


def _find(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Client | None:
    """Return the client of a call: of an Addr, of a handler or request, of the context."""
    values = (*arguments, *keywords.values()) if keywords else arguments
    for value in values:
        if isinstance(value, Addr):
            return value.client
    for value in values:
        found = _of_handler(value)
        if found is not None:
            return found.client
    return current()


# ---- The decorator -------------------------------------------------------------------


def _decorate(function: Callable[..., Any], is_strict: bool) -> Callable[..., Any]:
    signature = _signature(function)
    parameter = _parameter(function, signature)
    name = parameter.name
    others = [p for p in signature.parameters.values() if p is not parameter]
    place = None
    if parameter.kind in _BY_POSITION:
        place = [*signature.parameters].index(name)
    has_default = parameter.default is not inspect.Parameter.empty

    def fill_in(
        arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if name in keywords:
            return arguments, keywords  # The caller knows: a test, or another decorator.
        client = _find(arguments, keywords)
        if is_strict and (client is None or client.source == "none"):
            raise (
                _NoClientError(_name(function))
                if client is None
                else UnknownClientError(client.peer)
            )
        if client is None and has_default:
            client = parameter.default
        if place is None or len(arguments) < place:
            return arguments, {**keywords, name: client}
        return (*arguments[:place], client, *arguments[place:]), keywords

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapper(*arguments: Any, **keywords: Any) -> Any:
            arguments, keywords = fill_in(arguments, keywords)
            return await function(*arguments, **keywords)

    else:

        @functools.wraps(function)
        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            arguments, keywords = fill_in(arguments, keywords)
            return function(*arguments, **keywords)

    # Hidden: a framework that reads signatures would look for it in the request.
    wrapper.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
    return wrapper


def _decorate_class(
    protocol: type[Any], is_strict: bool, make_resolver: Callable[[], Resolver], view: View
) -> type[Any]:
    """Return a subclass that resolves on any transport, and whose handler may have `client`."""
    received = protocol.datagram_received

    def connection_made(self: Any, transport: Any) -> None:
        if transport.get_extra_info("uoa.resolver") is not None:
            protocol.connection_made(self, transport)
            return
        # asyncio belongs to who has such a class; `import uoa` does without.
        from uoa._wrap import shim_for

        shim = shim_for(self, make_resolver, view)
        transport.set_protocol(shim)
        shim.connection_made(transport)

    members = {
        "__doc__": protocol.__doc__,
        "__module__": protocol.__module__,
        "__qualname__": protocol.__qualname__,
        "connection_made": connection_made,
    }
    if "client" in _signature(received).parameters:
        members["datagram_received"] = _decorate(received, is_strict)
    return type(protocol.__name__, (protocol,), members)


# A class is callable too: the first overload is the one for it. The last one is for a
# `client` elsewhere than at the end or the front, where types cannot take it out, and
# for parameters that are Any: nothing is said then, rather than something wrong.


class _Decorator(Protocol):
    """What `real_client(…)` without a target returns."""

    @overload
    def __call__(self, target: _Kept, /) -> _Kept: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, target: Callable[[Unpack[_Ts], Client], _R], /
    ) -> Callable[[Unpack[_Ts]], _R]: ...
    @overload
    def __call__(self, target: Callable[Concatenate[Client, _P], _R], /) -> Callable[_P, _R]: ...
    @overload
    def __call__(self, target: Callable[..., object], /) -> Any: ...


@overload
def real_client(target: _Kept, /) -> _Kept: ...  # type: ignore[overload-overlap]
@overload
def real_client(target: Callable[[Unpack[_Ts], Client], _R], /) -> Callable[[Unpack[_Ts]], _R]: ...
@overload
def real_client(target: Callable[Concatenate[Client, _P], _R], /) -> Callable[_P, _R]: ...
@overload
def real_client(target: Callable[..., object], /) -> Any: ...
@overload
def real_client(
    *,
    missing: Literal["peer", "raise"] = "peer",
    resolver: Resolver | None = None,
    trust: str | Iterable[str] | None = None,
    view: View = "client",
) -> _Decorator: ...
def real_client(
    target: Any = None,
    /,
    *,
    missing: Literal["peer", "raise"] = "peer",
    resolver: Resolver | None = None,
    trust: str | Iterable[str] | None = None,
    view: View = "client",
) -> Any:
    """Fill in a handler's parameter `client` with the `Client` that it serves.

    The parameter is the one named `client`, or else annotated `uoa.Client`; it
    disappears from the signature. It is found in this order: an `Addr` among the
    arguments; an argument with `client_address`, `remote` or `scope` that has
    one; `uoa.current()`. A caller that gives `client=` itself, as a test may, is
    obeyed. When there is none the parameter's default stays, or it is None.

    For functions, coroutine functions and methods. A class with
    datagram_received(), such as a DatagramProtocol, becomes one that resolves on
    any transport as `uoa.wrap` does, and its datagram_received() may have the
    parameter; on an endpoint of uoa, which resolves already, nothing is done
    twice. Decorate the class that is handed to the loop, not a base of it.

    Args:
        target: what to decorate.
        missing: "raise" raises UnknownClientError instead of a call without a
            client, or with an unknown one.
        resolver: for a class: who resolves. Without it and `trust`, UOA_TRUST
            is read when a transport needs it.
        trust: for a class: a shorthand for `resolver=Resolver(trust)`.
        view: for a class: how `addr` reads.

    Raises:
        ConfigurationError: the target can never be given a client, or an argument is wrong.
    """
    if missing not in ("peer", "raise"):
        raise ConfigurationError(f'missing: {missing!r} is neither "peer" nor "raise"')
    check_view(view)
    is_for_class = resolver is not None or trust is not None or view != "client"
    make_resolver = functools.partial(choose_resolver, resolver, trust)
    if resolver is not None or trust is not None:
        chosen = make_resolver()
        make_resolver = functools.partial(choose_resolver, chosen, None)

    def decorate(target: Any) -> Any:
        if isinstance(target, type):
            if not hasattr(target, "datagram_received"):
                raise ConfigurationError(
                    f"real_client: class {target.__qualname__} has no datagram_received(): "
                    "decorate the method that handles a request"
                )
            return _decorate_class(target, missing == "raise", make_resolver, view)
        if is_for_class:
            raise ConfigurationError(
                "real_client: resolver, trust and view are for classes: a function's client was "
                "resolved by the endpoint, socket or server that calls it"
            )
        if isinstance(target, (staticmethod, classmethod)):
            return type(target)(_decorate(target.__func__, missing == "raise"))
        if not callable(target):
            raise ConfigurationError(f"real_client: {target!r} is not callable")
        return _decorate(target, missing == "raise")

    return decorate if target is None else decorate(target)
