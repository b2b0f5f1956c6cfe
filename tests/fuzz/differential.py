# SPDX-License-Identifier: MIT
"""Judge the C parser by the reference decoder, over mutated packets.

    python -m tests.fuzz.differential --cases 1000000 --seed 1 --jobs 2

Stops at the first difference, with the line that reproduces it, and status 1; also when some
reason or dialect was reached by less than one case in a thousand.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.fuzz.mutate import Mutator
from tests.fuzz.tally import table, too_rare
from tests.reference import decoder
from tests.wire import harness
from tests.wire.build import OPTIMISED, build

BATCH: Final = 20_000

# Batches of one seed have seeds of their own, so that any of them can be made again alone.
SEED_STEP: Final = 1_000_003


class Batch(NamedTuple):
    """What one process is asked to do."""

    program: Path
    seed: int
    number: int
    size: int


class Result(NamedTuple):
    """What came of it."""

    counts: Counter[str]
    difference: str
    """Empty when there was none."""


def run_batch(batch: Batch) -> Result:
    """Make the cases of a batch, ask both sides, compare."""
    mutator = Mutator(batch.seed * SEED_STEP + batch.number, harness.load(harness.PACKET_SUITES))
    cases = [mutator.next() for _ in range(batch.size)]
    counts: Counter[str] = Counter()
    lines = [harness.request(*case) for case in cases]
    outcomes = harness.decode(batch.program, lines)
    for number, (case, outcome) in enumerate(zip(cases, outcomes, strict=True)):
        expect = decoder.decode(*case)
        counts[str(expect["dialect"] if expect["found"] else expect["reason"])] += 1
        if outcome.expect() != expect:
            return Result(counts, describe(batch, number, lines[number], outcome, expect))
    return Result(counts, "")


def describe(
    batch: Batch, number: int, line: str, outcome: harness.Outcome, expect: dict[str, object]
) -> str:
    """Say everything that is needed to see the difference again."""
    return "\n".join(
        (
            f"difference in case {number} of batch {batch.number}, seed {batch.seed}:",
            f"  line      {line}",
            f"  parser    {outcome.expect()} (rule {outcome.rule} of UOA_RULES)",
            f"  reference {expect}",
            "see it again: echo 'LINE' | the program that tests/wire/vectors.c builds to",
        )
    )


def run(cases: int, seed: int, jobs: int) -> int:
    """Run all batches; return the exit status."""
    program = build("vectors", *OPTIMISED)
    sizes = [BATCH] * (cases // BATCH) + ([cases % BATCH] if cases % BATCH else [])
    batches = [Batch(program, seed, number, size) for number, size in enumerate(sizes)]
    counts: Counter[str] = Counter()
    began = shown = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for result in pool.imap(run_batch, batches):
            counts += result.counts
            if result.difference:
                print(result.difference)
                return 1
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(f"{counts.total()} of {cases} cases", file=sys.stderr, flush=True)
    print(table(counts))
    print(f"no difference, seed {seed}, {time.monotonic() - began:.0f} s")
    if rare := too_rare(counts):
        print(f"reached too seldom: {', '.join(rare)}")
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.differential")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    return run(options.cases, options.seed, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
