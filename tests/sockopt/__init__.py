# SPDX-License-Identifier: MIT
"""A kernel that answers getsockopt() from a table that a test fills."""
