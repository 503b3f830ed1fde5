# SPDX-License-Identifier: Apache-2.0
"""DAG folders for benchmarks: see `generate`."""
