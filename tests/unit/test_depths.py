# SPDX-License-Identifier: MIT
""".ci/count: CI is red when a depth did not run, whatever tox says of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_DEPTHS = "# depth, environment, least\nunit py311 2\ncapi capi 1\n"


def _count(checkout: Path, **ran: tuple[int, int]) -> subprocess.CompletedProcess[str]:
    """Run .ci/count in a checkout whose environments ran and skipped so many tests."""
    (checkout / ".ci").mkdir()
    shutil.copy(_ROOT / ".ci/count", checkout / ".ci/count")
    (checkout / ".ci/depths").write_text(_DEPTHS)
    reports = checkout / "build/tests"
    reports.mkdir(parents=True)
    for environment, (tests, skipped) in ran.items():
        (reports / f"{environment}.xml").write_text(
            f'<testsuites><testsuite tests="{tests}" skipped="{skipped}"/></testsuites>'
        )
    return subprocess.run([sys.executable, checkout / ".ci/count"], capture_output=True, text=True)


def test_enough_tests_are_enough(tmp_path: Path) -> None:
    """Every environment ran what .ci/depths wants: status 0."""
    result = _count(tmp_path, py311=(3, 1), capi=(1, 0))

    assert result.returncode == 0
    assert result.stdout.endswith("3 passed, 0 failed\n")


@pytest.mark.parametrize(
    "ran",
    [{"py311": (2, 0)}, {"py311": (2, 0), "capi": (5, 5)}, {}],
    ids=["no report", "all skipped", "nothing ran"],
)
def test_an_environment_that_did_not_run_is_a_failure(
    tmp_path: Path, ran: dict[str, tuple[int, int]]
) -> None:
    """An environment that tox skipped, or whose tests all were, is named; status 1."""
    result = _count(tmp_path, **ran)

    assert result.returncode == 1
    assert re.search(r"^capi .* TOO FEW$", result.stdout, re.MULTILINE)


def test_every_depth_wants_a_test() -> None:
    """No line of .ci/depths is content with none, and each names an environment of its own."""
    lines = (_ROOT / ".ci/depths").read_text().splitlines()
    wanted = [line.split() for line in lines if not line.startswith("#")]

    assert all(int(least) > 0 for _, _, least in wanted)
    assert len({environment for _, environment, _ in wanted}) == len(wanted)
