# SPDX-License-Identifier: MIT
"""The inputs that the fuzzers keep, against the reference."""

from __future__ import annotations

import itertools

from tests.capability import need
from tests.fuzz import seeds
from tests.fuzz.mutate import Mutator
from tests.reference import decoder
from tests.wire import harness
from tests.wire.build import SANITIZED, build


def test_corpus() -> None:
    """Parser and reference agree on every input that reached something no vector reaches."""
    need("gcc")
    cases = [seeds.to_case(data) for data in sorted(seeds.corpus())]
    assert 100 < len(cases) < 300
    outcomes = harness.decode(build("vectors", *SANITIZED), [harness.request(*c) for c in cases])
    for case, outcome in zip(cases, outcomes, strict=True):
        assert outcome.expect() == decoder.decode(*case), harness.request(*case)


def test_vectors_as_inputs() -> None:
    """An input of the fuzzer says what the vector says that it was made of."""
    for vector in harness.load(harness.PACKET_SUITES):
        packet, dialects, trusted = seeds.to_case(seeds.from_vector(vector))
        assert packet.hex() == vector["packet"]
        assert set(dialects) == set(vector["config"]["dialects"])
        assert (trusted is None) == ("trusted" not in vector["config"])


def test_mutator_repeats_itself() -> None:
    """Equal seeds make equal cases, so that a difference that was found is found again."""
    vectors = harness.load(harness.PACKET_SUITES)
    first, again, other = (Mutator(seed, vectors) for seed in (7, 7, 8))
    cases = [first.next() for _ in range(200)]
    assert cases == [again.next() for _ in range(200)]
    assert cases != list(itertools.islice(iter(other.next, None), 200))
