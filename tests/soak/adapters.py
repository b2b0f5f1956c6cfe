# SPDX-License-Identifier: MIT
"""`python -m tests.soak.adapters NAME SECONDS SEED`: attack one adapter, report as JSON.

The hosts are those of attack.py, in a network namespace of this process's own. Most of
the attack is a closed loop, in which nothing may be lost but what the stack itself
drops and counts. Between its bursts honest clients ask who they are, and now and then
comes a flood, of which the socket's buffer may lose what it counts.
"""

from __future__ import annotations

import functools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from aioquic.h3.connection import H3_ALPN

from tests.frameworks.quic import ALPN
from tests.frameworks.quic_talk import Http3Talk, QuicTalk
from tests.soak import honest, payloads
from tests.soak.attack import SERVER, TRUSTED, UNTRUSTED, Server, stack_drops
from tests.soak.traffic import Target, Traffic
from uoa.cli import _netns

Samples = list[tuple[float, dict[str, Any]]]

# What each carrier can make of such traffic; every one must really occur.
REASONS: Final = {
    "options": ("found", "absent", "malformed", "invalid_addr", "conflict", "untrusted"),
    "payload": (
        "found", "absent", "malformed", "invalid_addr", "local", "unsupported", "checksum",
        "untrusted",
    ),
    # Of strangers' connections nothing is read.
    "stream": (
        "found", "absent", "malformed", "invalid_addr", "local", "unsupported", "checksum",
    ),
}  # fmt: skip
OFTEN: Final = 100

_BURST: Final = 128  # datagrams
_BURST_BYTES: Final = 32 * 1024  # in the socket's buffer they take the double
_FLOOD: Final = 1000
_ASK_SECONDS: Final = 0.5
_FLOOD_SECONDS: Final = 2.0
_PROGRESS_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 60.0  # in which connections that nobody uses have to end
_GRACE_SECONDS: Final = 240.0  # for a machine that is too busy to count to OFTEN in time


def socket_drops(ports: tuple[int, ...]) -> int:
    """Return how many datagrams the UDP sockets on these ports have lost, their buffers full."""
    drops = 0
    for table in ("udp", "udp6"):
        _, *lines = Path(f"/proc/net/{table}").read_text("ascii").splitlines()
        for fields in map(str.split, lines):
            if int(fields[1].rpartition(":")[2], 16) in ports:
                drops += int(fields[-1])
    return drops


def errors_in(log: IO[bytes]) -> list[str]:
    """Return tracebacks that a server has written on its standard error."""
    log.seek(0)
    text = log.read().decode(errors="replace")
    at = text.find("Traceback")
    return [text[at : at + 8000]] if at >= 0 else []


def measured(samples: Samples) -> dict[str, Any]:
    """Return how memory grew in the last two thirds, and the most of what is bounded.

    Medians, since what is at hand at one moment says nothing: that of the first third,
    without its first half, when all is new, and that of the last sixth.
    """
    start, end = samples[0][0], samples[-1][0]

    def resident(first: float, last: float) -> float:
        length = end - start
        some = [
            sample["resident_kib"]
            for at, sample in samples
            if first * length <= at - start <= last * length
        ]
        return float(statistics.median(some or [0]))

    early, late = resident(1 / 6, 1 / 3), resident(5 / 6, 1)
    return {
        "early_kib": early,
        "grown_kib": late - early,
        "threads": max(sample["threads"] for _, sample in samples),
        "files": max(sample["files"] for _, sample in samples),
    }


class Watch:
    """The time of an attack: what is due, whether it goes on, and what is told meanwhile."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name, self._seconds = name, seconds
        self._started = self._shown = time.monotonic()
        self._due: dict[str, float] = {}
        self._wanted = ""  # reasons that are too rare, when time is over
        self.samples: Samples = []

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    def is_due(self, what: str, every: float) -> bool:
        """Return whether it is time again; the time runs from done() on."""
        return self.elapsed >= self._due.setdefault(what, every)

    def done(self, what: str, every: float) -> None:
        """Let something be due again after `every` seconds."""
        self._due[what] = self.elapsed + every

    def sample(self, report: dict[str, Any], told: str) -> None:
        """Keep a report, and tell how it goes now and then."""
        self.samples.append((self.elapsed, report))
        if self.elapsed - self._shown + self._started > _PROGRESS_SECONDS:
            self._shown = time.monotonic()
            wanted = f", until there are enough of {self._wanted}" if self._wanted else ""
            told = f"{self._name}: {told} in {self.elapsed:.0f} s{wanted}"
            told += f", {report['resident_kib']} KiB"
            print(told, file=sys.stderr, flush=True)

    def goes_on(self, reasons: dict[str, tuple[str, ...]]) -> bool:
        """Return whether there is time left, or some reason has not come often enough."""
        if self.elapsed < self._seconds or not self.samples:
            return True
        last = self.samples[-1][1]
        rare = [
            f"{carrier} {reason}"
            for carrier, all_ in reasons.items()
            for reason in all_
            if last[carrier][reason] < OFTEN
        ]
        self._wanted = ", ".join(rare)
        return bool(rare) and self.elapsed < self._seconds + _GRACE_SECONDS


class _Attack:
    """The attack on one server of datagrams."""

    def __init__(self, name: str, seconds: float, seed: int, log: IO[bytes]) -> None:
        rng = random.Random(seed)
        make_payloads, make_ask = CELLS[name]
        self._server = Server("tests.soak.servers", name, ",".join(TRUSTED), stderr=log)
        to = Target(*SERVER, *self._server.ports)
        pool = make_payloads(rng)
        self._sources = [
            Traffic(seed + number, *hosts, to, pool)
            for number, hosts in enumerate((TRUSTED, UNTRUSTED))
        ]
        self._ways = honest.ways(TRUSTED, UNTRUSTED, to)
        self._ask = make_ask(self._server, rng)
        self._watch = Watch(name, seconds)
        self._reasons = {
            carrier: REASONS[carrier]
            for carrier, port in (("options", to.options), ("payload", to.payload))
            if port
        }
        self._hostile = 0
        self.flood = {"sent": 0, "mutated": 0, "lost": 0}
        self.is_balanced = True

    @property
    def _sent(self) -> int:
        return self._hostile + sum(way.sent for way in self._ways)

    @property
    def _mutated(self) -> int:
        return sum(source.mutated for source in self._sources)

    def _lost(self) -> int:
        return stack_drops() + socket_drops(self._server.ports)

    def _settle(self) -> bool:
        """Wait until all that was sent is accounted for."""
        settled = self._server.has_all_of(self._sent, self._lost)
        self.is_balanced &= settled
        return settled

    def _burst(self) -> None:
        number = size = 0
        while number < _BURST and size < _BURST_BYTES:
            size += 512 + self._sources[number % 4 == 3].send_one()
            number += 1
        self._hostile += number

    def _send_flood(self) -> None:
        before, mutated = socket_drops(self._server.ports), self._mutated
        for number in range(_FLOOD):
            self._sources[number % 2].send_one()
        self._hostile += _FLOOD
        self.flood["mutated"] += self._mutated - mutated
        # They ask while it is on.
        self._ask_all()
        self._settle()
        self.flood["sent"] += _FLOOD
        self.flood["lost"] += socket_drops(self._server.ports) - before

    def _ask_all(self) -> None:
        for way in self._ways:
            honest.ask(way, self._ask)

    def _live(self) -> int:
        """Return how many connections are left when they have had the time to end."""
        end = time.monotonic() + _IDLE_SECONDS
        while (live := int(self._server.ask("live"))) and time.monotonic() < end:
            time.sleep(0.1)
        return live

    def _failures(self) -> int:
        return sum(len(way.wrong) + len(way.unanswered) for way in self._ways)

    def run(self) -> dict[str, Any]:
        """Attack until the time is over; return the report."""
        watch = self._watch
        watch.sample(self._server.report(), "0 datagrams")
        while watch.goes_on(self._reasons) and self._settle() and not self._failures():
            self._burst()
            if watch.is_due("ask", _ASK_SECONDS):
                self._settle()
                self._ask_all()
                watch.sample(self._server.report(), f"{self._sent} datagrams")
                watch.done("ask", _ASK_SECONDS)
            if watch.is_due("flood", _FLOOD_SECONDS):
                self._settle()
                self._send_flood()
                watch.done("flood", _FLOOD_SECONDS)
        if self._settle():
            self._ask_all()
            self._settle()
        live = self._live()
        report = self._server.report()
        drops, lost = stack_drops(), socket_drops(self._server.ports)
        for source in self._sources:
            source.close()
        for way in self._ways:
            way.sock.close()
        return {
            **report,
            **measured(watch.samples),
            "sent": self._sent,
            "mutated": self._mutated,
            "delivered": sum(report[carrier]["datagrams"] for carrier in self._reasons),
            "drops": drops,
            "lost": lost,
            "flood": self.flood,
            "live": live,
            "is_balanced": self.is_balanced,
            "honest": honest.total(self._ways),
            "reasons": self._reasons,
            "seconds": round(watch.elapsed, 1),
            "status": self._server.close(),
        }


def _syslog_ask(server: Server, rng: random.Random) -> honest.Ask:
    return honest.syslog(functools.partial(server.ask, "said"))


def _simply(ask: honest.Ask) -> Callable[[Server, random.Random], honest.Ask]:
    return lambda server, rng: ask


CELLS: Final[
    dict[
        str,
        tuple[
            Callable[[random.Random], list[bytes]], Callable[[Server, random.Random], honest.Ask]
        ],
    ]
] = {
    "dnslib": (payloads.dns, _simply(honest.dns)),
    "nserver": (payloads.dns, _simply(honest.dns)),
    "nserver-threads": (payloads.dns, _simply(honest.dns)),
    "aioquic": (
        payloads.quic([ALPN]),
        lambda server, rng: honest.quic(QuicTalk, rng),
    ),
    "hypercorn": (
        payloads.quic(H3_ALPN),
        lambda server, rng: honest.quic(Http3Talk, rng),
    ),
    "syslog": (payloads.syslog, _syslog_ask),
    "syslog-threads": (payloads.syslog, _syslog_ask),
    "socketserver": (payloads.anything, _simply(honest.line)),
    "wrap-asyncio": (payloads.anything, _simply(honest.line)),
    "wrap-uvloop": (payloads.anything, _simply(honest.line)),
}


def attack(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Attack one adapter; return the report."""
    _netns.enter()
    _netns.set_up([*TRUSTED, *UNTRUSTED, *SERVER])
    with tempfile.TemporaryFile() as log:
        report = _Attack(name, seconds, seed, log).run()
        return {**report, "tracebacks": errors_in(log)}


if __name__ == "__main__":
    print(json.dumps(attack(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))))
