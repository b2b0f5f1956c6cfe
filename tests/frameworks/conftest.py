# SPDX-License-Identifier: MIT
"""Fixtures: those of the unit tests that adapters need as well."""

from tests.unit.conftest import loop as loop
