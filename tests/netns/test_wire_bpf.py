# SPDX-License-Identifier: MIT
"""The parser in eBPF, on the running kernel, against vectors, user space and reference."""

from __future__ import annotations

from typing import Final, NamedTuple

import pytest

from tests.capability import need
from tests.fuzz.mutate import Mutator
from tests.reference import decoder
from tests.wire import harness
from tests.wire.build import OPTIMISED, build, build_bpf

MUTATED: Final = 20_000
MAX_INSTRUCTIONS: Final = 50_000

# Packets shorter than a base header, which no kernel takes as input of a test run.
REFUSED_VECTORS: Final = 24


class Run(NamedTuple):
    """What the runner bpf.c printed."""

    instructions: int
    """How many the verifier processed."""
    answers: list[str]
    refused: int


def run(source: str, lines: list[str]) -> Run:
    """Load wire_map or wire_skb and run it over some packets."""
    need("bpf")
    need("gcc")
    program = build("bpf", *OPTIMISED)
    head, *answers, tail = harness.run(program, lines, str(build_bpf(f"wire_{source}")), source)
    name, instructions = head.split(" ")
    assert name == f"wire_{source}"
    assert len(answers) == len(lines)
    return Run(int(instructions), answers, int(tail.removeprefix("refused ")))


def expect_of(answer: str) -> dict[str, object]:
    """Return an `expect` object; BPF builds no stripped packet, it only says that there is one."""
    return harness.outcome(answer).expect()


def known_to_bpf(expect: dict[str, object]) -> dict[str, object]:
    """Return an `expect` object with as much as BPF knows of it."""
    return expect | ({"stripped": "?"} if expect.get("stripped") else {})


@pytest.mark.parametrize(("source", "refused"), [("map", 0), ("skb", REFUSED_VECTORS)])
def test_vectors(source: str, refused: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The verifier takes the program with work to spare, and each vector comes out as expected."""
    vectors = harness.load(harness.OPTION_SUITES)
    ran = run(source, [harness.request_of(vector) for vector in vectors])
    with capsys.disabled():
        print(
            f"\nwire_{source}: {ran.instructions} instructions processed, "
            f"{ran.refused} of {len(vectors)} packets refused as input"
        )
    assert ran.instructions < MAX_INSTRUCTIONS
    assert ran.refused == ran.answers.count("refused") == refused
    for vector, answer in zip(vectors, ran.answers, strict=True):
        if answer == "refused":
            assert vector["expect"] in (
                {"found": False, "reason": "truncated"},
                {"found": False, "reason": "not_ip"},
            )
            continue
        expected = known_to_bpf(harness.canonical(vector["expect"]))
        assert expect_of(answer) == expected, vector["name"]


@pytest.mark.parametrize("source", ["map", "skb"])
def test_mutated_packets(source: str) -> None:
    """BPF agrees with the reference, and in the rule that decides with user space."""
    mutator = Mutator(3, harness.load(harness.OPTION_SUITES))
    cases = []
    for _ in range(MUTATED):
        packet, dialects, trusted = mutator.next()
        cases.append((packet, tuple(set(dialects) & harness.OPTION_DIALECTS), trusted))
    lines = [harness.request(*case) for case in cases]
    ran = run(source, lines)
    user_space = harness.decode(build("vectors", *OPTIMISED), lines)
    assert ran.refused < MUTATED // 10
    for case, answer, other in zip(cases, ran.answers, user_space, strict=True):
        if answer != "refused":
            line = harness.request(*case)
            assert expect_of(answer) == known_to_bpf(decoder.decode(*case)), line
            assert harness.outcome(answer).rule == other.rule, line
