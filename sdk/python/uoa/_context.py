# SPDX-License-Identifier: MIT
"""Whose datagram is being handled: what `uoa.current()` answers.

One context variable. It is set before a handler is called and reset after it:
event loops run all callbacks of a transport in one context, so that a value left
behind would be seen by the next datagram. Tasks and timers that a handler starts
keep a copy of theirs. Threads start with none: what starts them sets it there.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from uoa._client import Addr, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_subject: ContextVar[Addr | Client | None] = ContextVar("uoa.current", default=None)

# What follows handles the datagram of this Addr or Client. Called for every
# datagram, so it is the variable's own method.
enter: Callable[[Addr | Client], Token[Addr | Client | None]] = _subject.set

# Back to what was handled before the enter() that returned this token.
restore: Callable[[Token[Addr | Client | None]], None] = _subject.reset


def leave() -> None:
    """Say that what follows handles no datagram."""
    _subject.set(None)


@contextmanager
def acting_as(subject: Addr | Client | None) -> Iterator[None]:
    """Handle this one's datagram inside, and what was handled before afterwards."""
    token = _subject.set(subject)
    try:
        yield
    finally:
        _subject.reset(token)


def current() -> Client | None:
    """Return the client whose datagram is being handled here, or None.

    It is set while a handler runs, in the tasks and timers that it starts, and
    nowhere else; a thread has it if a class of `uoa` started the thread. With
    QUIC it is the sender of a datagram that nothing has authenticated yet.
    """
    subject = _subject.get()
    return subject.client if isinstance(subject, Addr) else subject
