# SPDX-License-Identifier: MIT
"""libuoa as a C programmer has it: installed, found by pkg-config, linked, run."""
