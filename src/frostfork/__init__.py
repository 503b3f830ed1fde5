# SPDX-License-Identifier: Apache-2.0
"""A fork manager for CPython on Linux: a parent prepares memory once, and its children keep sharing it."""

from typing import TYPE_CHECKING

from frostfork.blame import BlameReport, blame
from frostfork.errors import (
    BaselineError,
    ConfigurationError,
    FrostforkError,
    LedgerError,
    ObservationError,
    RemoteError,
    TaskTimeout,
    UnsupportedAirflowError,
    UnsupportedStepError,
    WorkerDied,
    ZygoteError,
)
from frostfork.fork import Installation, child_baseline, fork, install
from frostfork.journal import Journal
from frostfork.observe import ModuleImport, Observation, observe
from frostfork.pages import PAGE_SIZE, Baseline, Change, CopyReport, PageCounts, page_counts
from frostfork.steps.report import StepReport, WarmupReport
from frostfork.warmup import warmup

if TYPE_CHECKING:
    from frostfork.canary import Canary, Trial
    from frostfork.context import FrostforkContext, get_context
    from frostfork.learning_template import Learned, LearningTemplate
    from frostfork.ledger_file import LedgerFile
    from frostfork.pool.broken import PoolBroken
    from frostfork.pool.executor import ForkPool
    from frostfork.pool.records import PoolStats, TaskRecord, WorkerStats
    from frostfork.preload import (
        Decision,
        Finding,
        Installed,
        Ledger,
        ModuleRecord,
        Plan,
        PreloadMode,
        PreloadPolicy,
        SourceRecord,
        Verdict,
    )
    from frostfork.preloader import Preloader, PreloadReport, find_installed
    from frostfork.recycle import RecyclePolicy
    from frostfork.staleness import DistributionChange, InstalledWatch
    from frostfork.zygote import Coming, Ended, Template, Worker, Zygote

__version__ = "0.1.0"

__all__ = [
    "PAGE_SIZE",
    "Baseline",
    "BaselineError",
    "BlameReport",
    "Canary",
    "Change",
    "Coming",
    "ConfigurationError",
    "CopyReport",
    "Decision",
    "DistributionChange",
    "Ended",
    "Finding",
    "ForkPool",
    "FrostforkContext",
    "FrostforkError",
    "Installation",
    "Installed",
    "InstalledWatch",
    "Journal",
    "Learned",
    "LearningTemplate",
    "Ledger",
    "LedgerError",
    "LedgerFile",
    "ModuleImport",
    "ModuleRecord",
    "Observation",
    "ObservationError",
    "PageCounts",
    "Plan",
    "PoolBroken",
    "PoolStats",
    "PreloadMode",
    "PreloadPolicy",
    "PreloadReport",
    "Preloader",
    "RecyclePolicy",
    "RemoteError",
    "SourceRecord",
    "StepReport",
    "TaskRecord",
    "TaskTimeout",
    "Template",
    "Trial",
    "UnsupportedAirflowError",
    "UnsupportedStepError",
    "Verdict",
    "WarmupReport",
    "Worker",
    "WorkerDied",
    "WorkerStats",
    "Zygote",
    "ZygoteError",
    "blame",
    "child_baseline",
    "find_installed",
    "fork",
    "get_context",
    "install",
    "observe",
    "page_counts",
    "warmup",
]

# Whoever only forks need not pay for what decides: dataclasses and enum cost more than all of the above.
_LATER = {
    "frostfork.canary": ("Canary", "Trial"),
    "frostfork.context": ("FrostforkContext", "get_context"),
    "frostfork.learning_template": ("Learned", "LearningTemplate"),
    "frostfork.ledger_file": ("LedgerFile",),
    "frostfork.pool.broken": ("PoolBroken",),
    "frostfork.pool.executor": ("ForkPool",),
    "frostfork.pool.records": ("PoolStats", "TaskRecord", "WorkerStats"),
    "frostfork.preload": (
        "Decision",
        "Finding",
        "Installed",
        "Ledger",
        "ModuleRecord",
        "Plan",
        "PreloadMode",
        "PreloadPolicy",
        "SourceRecord",
        "Verdict",
    ),
    "frostfork.preloader": ("PreloadReport", "Preloader", "find_installed"),
    "frostfork.recycle": ("RecyclePolicy",),
    "frostfork.staleness": ("DistributionChange", "InstalledWatch"),
    "frostfork.zygote": ("Coming", "Ended", "Template", "Worker", "Zygote"),
}


def __getattr__(name: str) -> object:
    for module, names in _LATER.items():
        if name in names:
            import importlib

            globals().update({each: getattr(importlib.import_module(module), each) for each in names})
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
