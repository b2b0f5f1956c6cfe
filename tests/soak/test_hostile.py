# SPDX-License-Identifier: MIT
"""An endpoint under hostile traffic from a trusted and from an untrusted sender."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.capability import need

SECONDS = float(os.environ.get("UOA_SOAK_SECONDS", "20"))
SEED = int(os.environ.get("UOA_SOAK_SEED", "1"))

pytestmark = pytest.mark.timeout(SECONDS + 120)

# What each backend can make of such traffic; every one must really occur.
REASONS = {
    "options": ("found", "absent", "malformed", "invalid_addr", "conflict", "untrusted"),
    "payload": (
        "found", "absent", "malformed", "invalid_addr", "local", "unsupported", "checksum",
        "untrusted",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Attack once; all tests judge the same report."""
    need("netns")
    need("raw")
    result = subprocess.run(
        [sys.executable, "-m", "tests.soak.attack", str(SECONDS), str(SEED)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=SECONDS + 60,
    )
    document: dict[str, Any] = json.loads(result.stdout)
    print(json.dumps(document, indent=1))
    return document


def test_nothing_is_lost(report: dict[str, Any]) -> None:
    """Every datagram was delivered, or dropped and counted by the stack."""
    assert report["delivered"] + report["drops"] == report["sent"]


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
