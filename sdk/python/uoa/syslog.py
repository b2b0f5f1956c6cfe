# SPDX-License-Identifier: MIT
"""Syslog over UDP, each message with the client that it came from.

    import asyncio, uoa.syslog

    @uoa.syslog.handler
    async def on_message(data, *, client):
        message = uoa.syslog.parse(data)
        print(client.host, message.severity_name, message.text)

    asyncio.run(uoa.syslog.serve(on_message, "0.0.0.0", 514, trust=["10.0.0.0/24"]))

`client.host` is who sent the datagram. `message.hostname` is what the message says of
itself, and anybody may say anything. A handler gets the datagram's bytes, whole; empty
datagrams are no messages. serve() runs on asyncio and uvloop; UDPServer and
ThreadingUDPServer are `socketserver`'s. Only parse() needs `pip install "uoa[syslog]"`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

import uoa.socketserver as _servers
from uoa._context import enter
from uoa._exceptions import ConfigurationError
from uoa._receiver import BATCH
from uoa._syslog_handler import handler_of, is_coroutine_function, is_in_class, name_of
from uoa.asyncio import create_datagram_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uoa._client import Addr
    from uoa._resolver import Resolver

__all__ = [
    "Message",
    "SyslogProtocol",
    "ThreadingUDPServer",
    "UDPServer",
    "handler",
    "parse",
    "serve",
]

_R = TypeVar("_R")

_MOST_TASKS = 256  # handlers that run at once; what else comes waits in the kernel


# ---- Handlers ------------------------------------------------------------------------


@overload
def handler(function: Callable[..., _R]) -> Callable[..., _R]: ...
@overload
def handler(function: classmethod[Any, ..., _R]) -> Callable[..., _R]: ...
def handler(function: Any) -> Any:
    """Make a function or coroutine function a handler of messages.

    It is called with the datagram's bytes. Its parameter `client`, if it has one, is
    filled in as `uoa.real_client` does; without one there is `uoa.current()`. For
    methods too.

    Raises:
        ConfigurationError: it could never be called with the bytes only.
    """
    if isinstance(function, (staticmethod, classmethod)):
        before = (None,) if isinstance(function, classmethod) else ()
        return type(function)(handler_of(function.__func__, *before))
    if is_in_class(function):
        return handler_of(function, None)  # `self` comes first.
    return handler_of(function)


# ---- asyncio -------------------------------------------------------------------------


class SyslogProtocol(asyncio.DatagramProtocol):
    """A protocol that hands messages to a handler, for endpoints that serve() does not open.

    It belongs on a transport of uoa.asyncio.create_datagram_endpoint(), or into
    `uoa.wrap()` on asyncio's own; uvloop's own cannot be paused.

    Plain functions are called directly. Coroutine functions run in tasks, at most 256
    at a time; meanwhile further datagrams wait in the socket's buffer, and the kernel
    drops and counts those that find it full. What a handler raises goes to the loop's
    exception handler, and serving goes on. When the transport is closed, tasks that
    still run are cancelled.

    Args:
        on_message: a handler; a bare function becomes one.

    Raises:
        ConfigurationError: `on_message` could never be called with a message.
    """

    def __init__(self, on_message: Callable[..., Any]) -> None:
        self._on_message = handler_of(on_message)
        self._tasks: set[asyncio.Future[Any]] = set()
        self._is_paused = False
        self._closed: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        """Meet the transport.

        Raises:
            ConfigurationError: it knows no clients, or cannot be paused.
        """
        can_pause = hasattr(transport, "pause_reading")
        if not can_pause or transport.get_extra_info("uoa.resolver") is None:
            why = "knows no clients" if can_pause else "cannot be paused when work piles up"
            transport.abort()
            raise ConfigurationError(
                f"transport: {type(transport).__name__} {why}: use uoa.syslog.serve() or "
                "uoa.asyncio.create_datagram_endpoint()"
            )
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Handle one datagram."""
        self.datagrams_received([(data, addr)])

    def datagrams_received(self, datagrams: list[tuple[bytes, Addr]]) -> None:
        """Handle a batch of datagrams, each in the name of its own client."""
        for data, addr in datagrams:
            if not data:
                continue
            enter(addr)  # The transport leaves.
            try:
                result = self._on_message(data)
                if result is not None and inspect.isawaitable(result):
                    self._start(result)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._complain(error)

    def error_received(self, exc: Exception) -> None:
        """Tell the loop's exception handler of an error, such as an unknown client."""
        self._complain(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what still runs."""
        for task in self._tasks:
            task.cancel()
        if self._closed is not None:
            self._closed.set_result(None)

    async def wait_closed(self) -> None:
        """Wait until the transport is closed and no handler runs any more."""
        if self._closed is not None:
            await asyncio.shield(self._closed)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, awaitable: Any) -> None:
        """Run what a coroutine function returned; its task keeps the current client."""
        task = asyncio.ensure_future(awaitable)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        # There has to be room for a whole batch: pausing does not call one back.
        if not self._is_paused and len(self._tasks) > _MOST_TASKS - BATCH:
            self._is_paused = True
            self._transport.pause_reading()

    def _end(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._complain(error, task)
        if self._is_paused and len(self._tasks) < _MOST_TASKS // 2:
            self._is_paused = False
            self._transport.resume_reading()

    def _complain(self, error: BaseException, task: asyncio.Future[Any] | None = None) -> None:
        context = {
            "message": f"Exception in syslog handler {name_of(self._on_message)}()",
            "exception": error,
            "transport": self._transport,
            "protocol": self,
        }
        self._loop.call_exception_handler(context if task is None else {**context, "task": task})


async def serve(
    on_message: Callable[..., Any],
    host: str,
    port: int,
    *,
    resolver: Resolver | None = None,
    trust: str | Iterable[str] | None = None,
    reuse_port: bool | None = None,
) -> None:
    """Hand the messages that come to one address to a handler, until cancelled.

    See SyslogProtocol for how handlers run. When cancelled, it cancels the tasks of
    handlers and waits for their end.

    Args:
        on_message: a handler; a bare function becomes one.
        host: where to listen; "0.0.0.0" or "::" for all addresses.
        port: where to listen; 514 is the usual one.
        resolver: who resolves; it stays open at the end.
        trust: a shorthand for `resolver=Resolver(trust)`.
        reuse_port: as for the loop's own endpoints.

    Raises:
        ConfigurationError: an argument is wrong, or the handler cannot be called.
        BackendError: the socket cannot be served; its text says why.
    """
    protocol = SyslogProtocol(on_message)
    transport, _ = await create_datagram_endpoint(
        lambda: protocol, (host, port), resolver=resolver, trust=trust, reuse_port=reuse_port
    )
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        transport.close()
        await protocol.wait_closed()


# ---- socketserver --------------------------------------------------------------------


class _Request(_servers.DatagramHandler):
    """Hands one message to the server's handler."""

    server: UDPServer

    def handle(self) -> None:
        self.server.on_message(self.request[0])


class UDPServer(_servers.UDPServer):
    """A `uoa.socketserver.UDPServer` that hands messages to a handler.

    What a handler raises goes to handle_error(), and serving goes on.

    Args:
        server_address: where to listen.
        on_message: a handler; a bare function becomes one.
        bind_and_activate: as in the standard library.
        resolver: who resolves; it stays open when the server closes.
        trust: a shorthand for `resolver=Resolver(trust)`.

    Raises:
        ConfigurationError: an argument is wrong; the handler is a coroutine function,
            or cannot be called with a message.
        BackendError: the backend cannot work; its text says why.
    """

    def __init__(
        self,
        server_address: tuple[str, int],
        on_message: Callable[..., Any],
        bind_and_activate: bool = True,
        *,
        resolver: Resolver | None = None,
        trust: str | Iterable[str] | None = None,
    ) -> None:
        if is_coroutine_function(on_message):
            raise ConfigurationError(
                f"handler: {name_of(on_message)}() is a coroutine function, and no loop runs here: "
                "use uoa.syslog.serve(), or write it without `async`"
            )
        self.on_message = handler_of(on_message)
        super().__init__(
            server_address, _Request, bind_and_activate, resolver=resolver, trust=trust
        )

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether a datagram is a message: empty ones are not."""
        return bool(request[0])


class ThreadingUDPServer(UDPServer, _servers.ThreadingUDPServer):
    """A UDPServer on `uoa.socketserver.ThreadingUDPServer`: handlers run in threads."""


# ---- Parsing -------------------------------------------------------------------------

# syslog2cef reads both RFCs, is maintained, needs nothing else, has no warnings on
# Python 3.11 to 3.13, and its time is linear in whatever it is sent.
_MODES = (("rfc5424", 5424), ("rfc3164", 3164), ("iso_syslog", 3164))
_HEAD = re.compile(r"<([0-9]{1,3})>(1 )?")
_HIGHEST_PRIORITY = 191  # facility 23, severity 7

# As in syslog.conf; the numbers are those of both RFCs.
_SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron"),
    *("authpriv", "ftp", "ntp", "audit", "alert", "clock"),
    *(f"local{number}" for number in range(8)),
)


@dataclass(frozen=True, slots=True)
class Message:
    """What a message says. All of it is the sender's word, `hostname` too.

    What a message does not say is None. One that neither RFC describes is `text` only.
    """

    text: str
    """The free text, or all of a message that could not be parsed.

    Bytes that are no UTF-8 are written as `\\xff`. Control characters stay, newlines too.
    """
    rfc: int | None = None
    """Which RFC describes it: 5424, 3164 (with an ISO 8601 timestamp too), or None."""
    facility: int | None = None
    """From 0 to 23."""
    severity: int | None = None
    """From 0, an emergency, to 7, debugging."""
    timestamp: datetime | None = None
    """When it was sent; without a time zone if it names none, in the year nearest to now."""
    hostname: str | None = None
    """What the sender calls itself; see `uoa.Client.host` for who it is."""
    app: str | None = None
    """The program: APP-NAME of RFC 5424, the tag of RFC 3164."""
    procid: str | None = None
    """The process, mostly a number."""
    msgid: str | None = None
    """The kind of message."""
    structured_data: dict[str, str] = field(default_factory=dict)
    """The parameters of RFC 5424's structured data, as "ID.NAME"."""

    @property
    def facility_name(self) -> str | None:
        """The facility as in syslog.conf, such as "local0"."""
        return None if self.facility is None else _FACILITIES[self.facility]

    @property
    def severity_name(self) -> str | None:
        """The severity as in syslog.conf, such as "err"."""
        return None if self.severity is None else _SEVERITIES[self.severity]


def parse(data: bytes) -> Message:
    """Return what a datagram of RFC 5424 or RFC 3164 says; whatever comes, it is a Message.

    Raises:
        ImportError: the parser library is not installed; its text says how.
    """
    read = _library()
    text = bytes(data).decode("utf-8", "backslashreplace")
    head = _HEAD.match(text)
    if head is None or int(head[1]) > _HIGHEST_PRIORITY:
        return Message(text)
    # The library reads lines: what follows the first one is text.
    line, newline, more = text.partition("\n")
    for mode, rfc in _MODES:
        if (rfc == 5424) is (head[2] is None):
            continue
        try:
            event = read(line, mode=mode, now=datetime.now())
        except Exception:  # Of a parser, about the bytes of a stranger: it is not of this form.
            continue
        sent = event.ts
        if sent is not None and mode == "rfc3164":
            sent = sent.replace(tzinfo=None)
        return Message(
            event.msg.removeprefix("\ufeff") + newline + more,
            rfc,
            event.facility,
            event.severity,
            sent,
            event.host,
            event.app,
            event.pid,
            event.msgid,
            dict(event.sd),
        )
    return Message(text)


@functools.cache
def _library() -> Callable[..., Any]:
    try:
        from syslogcef import parse_syslog  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            'uoa.syslog.parse: syslog2cef is not installed: pip install "uoa[syslog]"',
            name="syslogcef",
        ) from error
    read: Callable[..., Any] = parse_syslog
    return read
