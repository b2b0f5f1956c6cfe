# SPDX-License-Identifier: MIT
"""The adapters of all frameworks under hostile traffic, each a process of its own.

UOA_SOAK_SECONDS is how long each is attacked, several at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from tests.capability import need
from tests.soak.adapters import CELLS, OFTEN

SECONDS: Final = float(os.environ.get("UOA_SOAK_SECONDS", "30"))
SEED: Final = int(os.environ.get("UOA_SOAK_SEED", "1"))

_AT_ONCE: Final = 6
_CONNECTIONS: Final = "dnslib-tcp"
NAMES: Final = (*CELLS, _CONNECTIONS)
QUIC: Final = ("aioquic", "hypercorn")
THREADED: Final = ("dnslib", _CONNECTIONS, "syslog-threads", "socketserver")
"""Servers that start a thread for each message, up to a ceiling."""
PAUSED: Final = ("syslog", "syslog-threads", "socketserver")
"""Those whose handlers are made slow, so that they come to the ceiling."""

_MOST_THREADS: Final = 256
_OTHER_THREADS: Final = 16  # of two servers, their loops, and the process itself
_MOST_FILES: Final = 32
_MOST_GROWN: Final = 2048 if SECONDS <= 60 else 8192  # KiB
# As much as the stacks of its threads differ by, and what they have at hand.
_MOST_GROWN_THREADED: Final = 8 * 1024
# What comes and goes with hundreds of connections: that none is left is judged by itself.
_MOST_GROWN_QUIC: Final = 24 * 1024
_GRACE_SECONDS: Final = 600  # for a machine that has other work to do

_ROUNDS: Final = -(-len(NAMES) // _AT_ONCE)
pytestmark = pytest.mark.timeout(_ROUNDS * (SECONDS + _GRACE_SECONDS) + 60)


def _run(name: str) -> dict[str, Any]:
    arguments = (
        ["tests.soak.connections"] if name == _CONNECTIONS else ["tests.soak.adapters", name]
    )
    result = subprocess.run(
        [sys.executable, "-m", *arguments, str(SECONDS), str(SEED)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=SECONDS + _GRACE_SECONDS,
    )
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.fixture(scope="module")
def reports(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """Attack each once; all tests judge the same reports."""
    need("netns")
    need("raw")
    need("uvloop")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled(), ThreadPoolExecutor(_AT_ONCE) as pool:
        print(f"\nhostile traffic to {len(NAMES)} servers, {_AT_ONCE} at a time, seed {SEED}:")
        attacks = {name: pool.submit(_run, name) for name in NAMES}
        found = {name: attack.result() for name, attack in attacks.items()}
        print(*_lines(found), sep="\n")
    return found


def _lines(reports: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, report in reports.items():
        honest = report["honest"]
        yield (
            f"{name}: {report['sent']} sent in {report['seconds']} s, {report['mutated']} mutated, "
            f"{report['delivered']} delivered, {report.get('drops', 0)} dropped by the stack, "
            f"{report.get('lost', 0)} lost in floods; {honest['asked']} honest questions; "
            f"at most {report['threads']} threads and {report['files']} files, "
            f"{report['grown_kib']:+.0f} KiB to {report['resident_kib']} KiB"
        )
        for carrier, reasons in report["reasons"].items():
            counts = ", ".join(f"{report[carrier][reason]} {reason}" for reason in reasons)
            yield f"{name}, {carrier}: {counts}"


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """The name of a server."""
    value: str = request.param
    return value


@pytest.fixture
def report(reports: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """What became of it."""
    return reports[name]


def test_nothing_is_raised(report: dict[str, Any]) -> None:
    """No event loop, handle_error(), log or standard error was told of an exception."""
    assert report["complaints"] == []
    assert report["tracebacks"] == []
    assert report["status"] == 0


def test_the_honest_are_answered_rightly(report: dict[str, Any]) -> None:
    """Each question of an honest client had its answer, at the end too, and none was wrong."""
    assert report["honest"]["wrong"] == []
    assert report["honest"]["unanswered"] == []
    assert report["honest"]["asked"] >= 10


def test_memory_is_flat(report: dict[str, Any], name: str) -> None:
    """Resident memory does not grow in the last two thirds of the attack."""
    most = _MOST_GROWN_THREADED if name in THREADED else _MOST_GROWN
    assert report["grown_kib"] < (_MOST_GROWN_QUIC if name in QUIC else most)


def test_threads_and_files_are_bounded(report: dict[str, Any], name: str) -> None:
    """A flood makes no threads without number, and no files but a connection's for a thread."""
    servers = len(report["reasons"])
    threads = _MOST_THREADS * servers if name in THREADED else 0
    assert report["threads"] <= threads + _OTHER_THREADS
    assert report["files"] <= _MOST_FILES + (threads if name == _CONNECTIONS else 0)


@pytest.mark.parametrize("name", PAUSED, indirect=False)
def test_slow_handlers_reach_the_ceiling(reports: dict[str, dict[str, Any]], name: str) -> None:
    """All places for handlers were taken at once, more than once."""
    assert reports[name]["ceilings"] >= 2


def test_slow_connections_reach_the_ceiling(reports: dict[str, dict[str, Any]]) -> None:
    """All threads were taken by clients that send a byte now and then."""
    assert reports[_CONNECTIONS]["threads"] >= _MOST_THREADS


@pytest.mark.parametrize("name", QUIC, indirect=False)
def test_no_connection_is_left(reports: dict[str, dict[str, Any]], name: str) -> None:
    """When the attack is over all QUIC connections end, whatever they began with."""
    assert reports[name]["live"] == 0


def test_half_of_it_is_mutated(report: dict[str, Any]) -> None:
    """At least 40 in 100 claims are damaged, those of the honest and of floods included."""
    assert report["mutated"] >= 0.4 * report["sent"]


@pytest.mark.parametrize("name", list(CELLS), indirect=False)
def test_most_mutants_arrive(reports: dict[str, dict[str, Any]], name: str) -> None:
    """At least half of them reached the server, even if the stack dropped nothing else."""
    report = reports[name]
    mutated = report["mutated"] - report["flood"]["mutated"]
    assert mutated - report["drops"] >= mutated / 2


def test_most_connections_arrive(reports: dict[str, dict[str, Any]]) -> None:
    """At least half of the connections came to the end of their headers."""
    assert reports[_CONNECTIONS]["delivered"] >= reports[_CONNECTIONS]["sent"] / 2


@pytest.mark.parametrize("name", list(CELLS), indirect=False)
def test_nothing_is_lost(reports: dict[str, dict[str, Any]], name: str) -> None:
    """Every datagram was delivered, or counted by the stack; by a full socket in floods only."""
    report = reports[name]
    assert report["is_balanced"]
    assert report["delivered"] + report["drops"] + report["lost"] == report["sent"]
    assert report["lost"] == report["flood"]["lost"]


def test_every_reason_occurs(report: dict[str, Any]) -> None:
    """Each reason that a carrier can give was counted at least 100 times."""
    rare = {
        (carrier, reason): report[carrier][reason]
        for carrier, reasons in report["reasons"].items()
        for reason in reasons
        if report[carrier][reason] < OFTEN
    }
    assert not rare
