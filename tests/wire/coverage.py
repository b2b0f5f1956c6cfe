# SPDX-License-Identifier: MIT
"""Measure the branch coverage of the freestanding headers.

    python -m tests.wire.coverage

Runs all vectors and some mutated packets through harnesses built with clang's instrumentation,
and adds up the branches of wire.h, wire_walk.h, wire_payload.h, wire_build.h and uapi.h over every
place that they were inlined into. Status 1 when a branch was never taken that is not in GAPS, or
when a gap of GAPS is none any more.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.capability import unable
from tests.fuzz.mutate import Mutator
from tests.wire import build_lines, harness, sockopt_lines, stream_lines
from tests.wire.build import INCLUDE, build

HEADERS: Final = ("wire.h", "wire_walk.h", "wire_payload.h", "wire_build.h", "uapi.h")
INSTRUMENTED: Final = ("-O0", "-fprofile-instr-generate", "-fcoverage-mapping")
MUTATED: Final = 20_000
RANDOM_REQUESTS: Final = 5_000


class Gap(NamedTuple):
    """A branch that nothing takes, by the text of its line and the way it never goes."""

    header: str
    line: str
    way: bool


# Every branch that is never taken, and why that is right.
GAPS: Final[dict[Gap, str]] = {}


class Branch(NamedTuple):
    """A place in a header where the code forks."""

    header: str
    line: int
    column: int
    way: bool


def lines_for(harness_name: str) -> list[str]:
    """Return what one harness is asked."""
    rnd = random.Random(1)
    if harness_name == "sockopt":
        vectors = harness.load(harness.SOCKOPT_SUITES)
        vectors += [sockopt_lines.random_vector(rnd) for _ in range(RANDOM_REQUESTS)]
        return [sockopt_lines.request_of(vector) for vector in vectors]
    if harness_name == "builds":
        builds = (build_lines.packets, build_lines.parts, build_lines.refused, build_lines.plain)
        return [wanted.line() for some in builds for wanted in some()]
    if harness_name == "streams":
        return [stream_lines.line_of(start) for start in stream_lines.starts()]
    mutator = Mutator(1, harness.load(harness.PACKET_SUITES))
    vectors = harness.load(harness.PACKET_SUITES)
    lines = [harness.request_of(vector) for vector in vectors]
    return lines + [harness.request(*mutator.next()) for _ in range(MUTATED)]


def measure() -> Counter[Branch]:
    """Run the harnesses; return how often each branch was taken, untaken ones included."""
    taken: Counter[Branch] = Counter()
    for name in ("vectors", "reads", "builds", "streams", "sockopt"):
        program = build(name, *INSTRUMENTED, compiler="clang")
        with tempfile.TemporaryDirectory(prefix="uoa-coverage-") as folder:
            raw, merged = Path(folder) / "raw", Path(folder) / "merged"
            os.environ["LLVM_PROFILE_FILE"] = str(raw)
            harness.ask(program, lines_for(name))
            tool("llvm-profdata", "merge", raw, "-o", merged)
            exported = tool("llvm-cov", "export", program, f"-instr-profile={merged}")
        for branch, count in branches(json.loads(exported)):
            taken[branch] += count
    return taken


def tool(name: str, *arguments: str | Path) -> str:
    """Run one of LLVM's tools and return what it prints."""
    return subprocess.run(
        [name, *arguments], check=True, capture_output=True, encoding="utf-8"
    ).stdout


def branches(exported: dict[str, Any]) -> Iterator[tuple[Branch, int]]:
    """Read the branches of the headers out of an export of llvm-cov, function by function."""
    for function in exported["data"][0]["functions"]:
        for line, column, _, _, true, false, file, _, _ in function["branches"]:
            path = Path(function["filenames"][file])
            if path.parent == INCLUDE / "uoa" and path.name in HEADERS:
                yield Branch(path.name, line, column, True), true
                yield Branch(path.name, line, column, False), false


def source_line(branch: Branch) -> str:
    """Return the text of the line that a branch is on."""
    text = (INCLUDE / "uoa" / branch.header).read_text(encoding="ascii")
    return text.splitlines()[branch.line - 1].strip()


def report(taken: Counter[Branch]) -> int:
    """Print the coverage of each header and each branch not taken; return the exit status."""
    status = 0
    unused = dict(GAPS)
    for header in HEADERS:
        here = {branch: count for branch, count in taken.items() if branch.header == header}
        missed = sorted(branch for branch, count in here.items() if not count)
        print(f"{header:<16}{len(here) - len(missed):>5} of {len(here):>4} branches taken")
        for branch in missed:
            gap = Gap(header, source_line(branch), branch.way)
            reason = GAPS.get(gap)
            unused.pop(gap, None)
            print(
                f"  {header}:{branch.line}:{branch.column} never {str(branch.way).lower()}: "
                f"{gap.line}\n    {reason or 'NO REASON GIVEN'}"
            )
            status |= reason is None
    for gap in unused:
        print(f"no gap any more: {gap}")
        status = 1
    return status


def main() -> int:
    """Measure and report."""
    status = unable("clang", "llvm")
    return report(measure()) if status is None else status


if __name__ == "__main__":
    sys.exit(main())
