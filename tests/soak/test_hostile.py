# SPDX-License-Identifier: MIT
"""An endpoint under hostile traffic from a trusted and from an untrusted sender."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.capability import need

DATAGRAMS = int(os.environ.get("UOA_SOAK_DATAGRAMS", "1000000"))
SEED = int(os.environ.get("UOA_SOAK_SEED", "1"))

_SECONDS = 60 + DATAGRAMS / 2000  # a machine that has other work to do sends ten times as many
pytestmark = pytest.mark.timeout(_SECONDS + 60)

# What each backend can make of such traffic; every one must really occur.
REASONS = {
    "options": ("found", "absent", "malformed", "invalid_addr", "conflict", "untrusted"),
    "payload": (
        "found", "absent", "malformed", "invalid_addr", "local", "unsupported", "checksum",
        "untrusted",
    ),
}  # fmt: skip
DIALECTS = {"options": ("ipo", "bd31", "bd30", "bd29"), "payload": ("ppv2", "spp")}


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Attack once; all tests judge the same report."""
    need("netns")
    need("raw")
    result = subprocess.run(
        [sys.executable, "-m", "tests.soak.attack", str(DATAGRAMS), str(SEED)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_SECONDS,
    )
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"hostile traffic with seed {SEED}, for {report['seconds']} s:"
    for name in ("sent", "mutated", "drops", "delivered"):
        yield f"{name:<24}{report[name]:>10}{report[name] / report['sent']:>10.3%}"
    for backend, counters in report.items():
        if backend in REASONS:
            for name in (*REASONS[backend], *map("found_{}".format, DIALECTS[backend])):
                share = counters[name] / counters["datagrams"]
                yield f"{backend + ' ' + name:<24}{counters[name]:>10}{share:>10.3%}"


def test_all_is_sent(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The attack went on to its end; how many were counted for which reason is printed."""
    with capsys.disabled():
        print("", *_lines(report), sep="\n")
    assert report["sent"] == DATAGRAMS


def test_nothing_is_lost(report: dict[str, Any]) -> None:
    """Every datagram was delivered, or dropped and counted by the stack."""
    assert report["delivered"] + report["drops"] == report["sent"]


def test_half_of_it_is_mutated(report: dict[str, Any]) -> None:
    """At least 45 in 100 datagrams differed from what a balancer writes."""
    assert report["mutated"] >= 0.45 * report["sent"]


def test_most_mutants_arrive(report: dict[str, Any]) -> None:
    """At least half of them reached the endpoint, even if the stack dropped nothing else."""
    assert report["mutated"] - report["drops"] >= report["mutated"] / 2


def test_most_of_it_arrives(report: dict[str, Any]) -> None:
    """At least half of the traffic reached the endpoint: the attack is one."""
    assert report["delivered"] > report["sent"] / 2


def test_nothing_is_raised(report: dict[str, Any]) -> None:
    """Neither the event loop nor the protocol was told of an error."""
    assert report["complaints"] == []
    assert report["errors"] == 0


def test_memory_is_flat(report: dict[str, Any]) -> None:
    """Resident memory grew by less than 1 MiB in the last two thirds of the attack."""
    assert report["grown_kib"] < 1024


@pytest.mark.parametrize(
    ("backend", "reason"), [(backend, r) for backend, all_ in REASONS.items() for r in all_]
)
def test_every_reason_occurs(report: dict[str, Any], backend: str, reason: str) -> None:
    """Each reason that the backend can give was counted at least 100 times."""
    assert report[backend][reason] >= 100


@pytest.mark.parametrize(
    ("backend", "dialect"), [(backend, d) for backend, all_ in DIALECTS.items() for d in all_]
)
def test_every_dialect_occurs(report: dict[str, Any], backend: str, dialect: str) -> None:
    """Claims in each dialect that the backend reads were accepted at least 100 times."""
    assert report[backend][f"found_{dialect}"] >= 100
