# SPDX-License-Identifier: Apache-2.0
"""The exceptions of frostfork: one base, so that one `except` catches all that is ours.

Refusals of the kernel are plain OSErrors with their errno, since callers of os.fork and readers of /proc
already handle those.
"""


class FrostforkError(Exception):
    """Base of all errors that frostfork raises of its own."""


class ConfigurationError(FrostforkError):
    """A setting that cannot be used; the message names it, its value and what is allowed."""


class LedgerError(FrostforkError):
    """A ledger that cannot be read, written or locked; the message says which and why."""


class ObservationError(FrostforkError):
    """Observed data that cannot be read: damaged, or written by something else."""


class UnsupportedAirflowError(FrostforkError):
    """This Airflow lacks a place that frostfork needs; the message names it."""


class BaselineError(FrostforkError):
    """There is no baseline to compare with."""


class UnsupportedStepError(FrostforkError):
    """A step of a warmup that this interpreter, C library or kernel cannot do; the message says why."""


class ZygoteError(FrostforkError):
    """A zygote that cannot be started, replaced or used; the message says why."""
