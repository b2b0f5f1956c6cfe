# SPDX-License-Identifier: MIT
"""Hostile traffic against a running endpoint, for as long as one likes."""
