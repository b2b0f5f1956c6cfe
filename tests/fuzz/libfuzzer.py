# SPDX-License-Identifier: MIT
"""Run the libFuzzer target fuzz_wire.c, seeded from the vectors and corpus.txt.

    python -m tests.fuzz.libfuzzer --runs 1000000 --seed 1
    python -m tests.fuzz.libfuzzer --runs 10000000 --minimise    write the corpus anew

Prints executions per reason and dialect. Status 1: it found something (the input is printed), or
less than one execution in a thousand reached some reason or dialect.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.capability import unable
from tests.fuzz import seeds
from tests.fuzz.tally import table, too_rare
from tests.wire.build import SANITIZED, build
from tests.wire.harness import SANITIZER_OPTIONS

# The longest vector, and some room.
MAX_LEN: Final = 2400
# What is kept for good is short: no option area reaches further into a packet.
CORPUS_MAX_LEN: Final = 600


def run(runs: int, seed: int, minimise: bool) -> int:
    """Fuzz; return the exit status."""
    target = build("fuzz_wire", *SANITIZED, "-fsanitize=fuzzer", compiler="clang")
    with tempfile.TemporaryDirectory(prefix="uoa-fuzz-") as name:
        folder = Path(name)
        seeds.write(folder / "corpus", seeds.vectors() | seeds.corpus())
        command: list[str | Path] = [
            target,
            f"-runs={runs}",
            f"-seed={seed}",
            f"-max_len={MAX_LEN}",
            # One or two mutations at a time: stacks of five mostly break the packet.
            "-mutate_depth=2",
            f"-artifact_prefix={folder}/",
            folder / "corpus",
        ]
        # Progress goes to stderr.
        result = subprocess.run(
            command, stdout=subprocess.PIPE, encoding="utf-8", env=os.environ | SANITIZER_OPTIONS
        )
        if result.returncode:
            for artifact in folder.glob("*-*"):
                print(f"{artifact.name}: {artifact.read_bytes().hex()}")
            return 1
        if minimise:
            seeds.keep(merge(target, folder / "corpus"))
    counts = read_counts(result.stdout)
    print(table(counts))
    if rare := too_rare(counts):
        print(f"reached too seldom: {', '.join(rare)}")
        return 1
    return 0


def read_counts(text: str) -> Counter[str]:
    """Read the lines `outcome NAME COUNT` that the target prints at its end."""
    counts: Counter[str] = Counter()
    for line in text.splitlines():
        _, name, count = line.split(" ")
        counts[name] = int(count)
    return counts


def merge(target: Path, found: Path) -> set[bytes]:
    """Return the fewest inputs that reach, beyond the vectors, all that was reached."""
    with tempfile.TemporaryDirectory(prefix="uoa-fuzz-") as name:
        kept = Path(name)
        seeds.write(kept, seeds.vectors())
        command: list[str | Path] = [target, "-merge=1", f"-max_len={CORPUS_MAX_LEN}", kept, found]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        inputs = {path.read_bytes() for path in kept.iterdir()} - seeds.vectors()
    return {data for data in inputs if len(data) >= seeds.SETTINGS_LEN}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.libfuzzer")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minimise", action="store_true", help="write corpus.txt anew")
    options = parser.parse_args(arguments)
    status = unable("libfuzzer")
    return run(options.runs, options.seed, options.minimise) if status is None else status


if __name__ == "__main__":
    sys.exit(main())
