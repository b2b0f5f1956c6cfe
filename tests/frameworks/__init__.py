# SPDX-License-Identifier: MIT
"""Adapters, each with its framework installed."""
