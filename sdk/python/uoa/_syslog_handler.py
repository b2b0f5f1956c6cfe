# SPDX-License-Identifier: MIT
"""What can be called with a syslog message, and gets its client."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from uoa._exceptions import ConfigurationError
from uoa._real_client import real_client, takes_client

if TYPE_CHECKING:
    from collections.abc import Callable


def handler_of(function: Any, *before: None) -> Callable[..., Any]:
    """Return what to call with a message, after the arguments that are there `before`.

    Raises:
        ConfigurationError: it could never be called so.
    """
    if not callable(function):
        raise ConfigurationError(f"handler: {function!r} is not callable")
    filled: Callable[..., Any] = function
    try:
        if takes_client(function):
            filled = real_client(function)
        signature = inspect.signature(filled)
    except ConfigurationError:
        raise
    except ValueError:
        return filled  # It is of C, and has no signature.
    try:
        signature.bind(*before, b"")
    except TypeError as error:
        raise ConfigurationError(
            f"handler: {name_of(function)}(): {error}: it is called with the message's bytes, so "
            "write it as on_message(data), or on_message(data, *, client)"
        ) from None
    return filled


def is_in_class(function: Any) -> bool:
    """Return whether a function is being defined in the body of a class."""
    place = getattr(function, "__qualname__", "").rpartition(".")[0]
    return inspect.isfunction(function) and bool(place) and not place.endswith("<locals>")


def is_coroutine_function(function: Any) -> bool:
    """Return whether calling it, a function or an object, gives a coroutine."""
    call = getattr(type(function), "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def name_of(function: Any) -> str:
    """Return the name that error messages call it by."""
    return getattr(function, "__qualname__", None) or repr(function)
