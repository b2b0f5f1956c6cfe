# SPDX-License-Identifier: MIT
"""What uoa costs, as ratios against others' untouched defaults.

`python -m tests.bench` runs every variant in a process of its own, in turn, and
prints medians; docs/performance.md tells what the rows mean.
"""
