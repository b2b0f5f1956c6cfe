# SPDX-License-Identifier: MIT
"""Inputs of the libFuzzer target: the packet vectors, and what the fuzzer kept beyond them.

python -m tests.fuzz.seeds FOLDER    write all of them, one file each
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.fuzz.mutate import Case
from tests.wire import harness

CORPUS: Final = Path(__file__).with_name("corpus.txt")

# The settings of fuzz_wire.c: dialects, trust, the read that fails.
SETTINGS_LEN: Final = 3
TRUST_ALL, TRUST_NOBODY, TRUST_SOME = 0x00, 0xC0, 0xC1
TRUSTED: Final = ("10.10.0.0/16", "127.0.0.0/8", "2001:db8:a::/48", "::1")


def from_vector(vector: harness.Vector) -> bytes:
    """Return the packet of a vector as input."""
    config = vector["config"]
    trust = TRUST_ALL
    if "trusted" in config:
        trust = TRUST_SOME if config["trusted"] else TRUST_NOBODY
    switches = sum(harness.SWITCHES[name] for name in config["dialects"])
    return bytes((switches, trust, 0)) + bytes.fromhex(vector["packet"])


def to_case(data: bytes) -> Case:
    """Return what an input makes the parser judge."""
    dialects = tuple(name for name, bit in harness.SWITCHES.items() if data[0] & bit)
    trusted = None
    if data[1] >= TRUST_NOBODY:
        trusted = TRUSTED if data[1] & 1 else ()
    return data[SETTINGS_LEN:], dialects, trusted


def vectors() -> set[bytes]:
    """Return all packet vectors as inputs."""
    return {from_vector(vector) for vector in harness.load(harness.PACKET_SUITES)}


def corpus() -> set[bytes]:
    """Return what the fuzzer kept."""
    lines = CORPUS.read_text(encoding="ascii").splitlines()
    return {bytes.fromhex(line) for line in lines if not line.startswith("#")}


def keep(inputs: Iterable[bytes]) -> None:
    """Write the corpus anew."""
    lines = CORPUS.read_text(encoding="ascii").splitlines()
    head = [line for line in lines if line.startswith("#")]
    body = [data.hex() for data in sorted(inputs, key=lambda data: (len(data), data))]
    CORPUS.write_text("\n".join((*head, *body, "")), encoding="ascii")


def write(folder: Path, inputs: Iterable[bytes]) -> None:
    """Write inputs to a folder, each under the name that libFuzzer would give it."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]), vectors() | corpus())
