# SPDX-License-Identifier: MIT
"""The getsockopt() requests of uapi.h, under sanitizers, against vectors and reference."""

from __future__ import annotations

import random

import pytest

from tests.capability import need
from tests.reference import sockopt
from tests.wire import harness
from tests.wire.build import SANITIZED, build
from tests.wire.sockopt_lines import answer_to, random_vector, request_of

RANDOM_REQUESTS = 2000


@pytest.fixture(params=["gcc", "clang"])
def compiler(request: pytest.FixtureRequest) -> str:
    """Name a compiler that is here."""
    name: str = request.param
    need(name)
    return name


def reference(vector: harness.Vector) -> dict[str, object]:
    """Return what the reference answers to a sockopt vector."""
    return sockopt.answer(
        *(vector["level"], vector["optname"], vector["optlen"]),
        *(bytes.fromhex(vector["request"]), vector["table"]),
        vector.get("config", {}).get("v6_to_v4_prefix"),
    )


@pytest.mark.parametrize("suite", harness.SOCKOPT_SUITES)
def test_vectors(compiler: str, suite: str) -> None:
    """Status, length and every byte of the buffer after the call are what the vector says."""
    program = build("sockopt", *SANITIZED, compiler=compiler)
    vectors = harness.load([suite])
    answers = harness.ask(program, [request_of(vector) for vector in vectors])
    for vector, answer in zip(vectors, answers, strict=True):
        assert answer == answer_to(vector, vector["expect"]), vector["name"]


@pytest.mark.parametrize("suite", harness.SOCKOPT_SUITES)
def test_vectors_against_reference(suite: str) -> None:
    """The reference answers each vector as expected, so it may judge requests without one."""
    for vector in harness.load([suite]):
        expect = {key: vector["expect"][key] for key in vector["expect"] if key != "errno_original"}
        assert reference(vector) == expect, vector["name"]


def test_random_requests(compiler: str) -> None:
    """uapi.h over a table and the reference agree on requests that no vector has."""
    program = build("sockopt", *SANITIZED, compiler=compiler)
    rnd = random.Random(1)
    vectors = [random_vector(rnd) for _ in range(RANDOM_REQUESTS)]
    answers = harness.ask(program, [request_of(vector) for vector in vectors])
    for vector, answer in zip(vectors, answers, strict=True):
        assert answer == answer_to(vector, reference(vector)), request_of(vector)
    statuses = {answer.partition(" ")[0] for answer in answers}
    assert statuses == {"OK", "ENOPROTOOPT", "EINVAL", "ENOENT", "ENOTUNIQ", "EAFNOSUPPORT"}
