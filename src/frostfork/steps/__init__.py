# SPDX-License-Identifier: Apache-2.0
"""The steps of a warmup, one module each: what it does to this process, and what it says of it.

Each has one function of its own name that does the work and returns an Outcome, or raises UnsupportedStepError with the
reason in one sentence where this interpreter, C library or kernel cannot. None knows of the others: their order is
`frostfork.warmup`'s.
"""
