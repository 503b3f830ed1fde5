# SPDX-License-Identifier: Apache-2.0
"""What to import in the parent: plain data in, decisions with reasons out. No I/O, no imports, no forks."""

from frostfork.preload.ledger import Ledger, ModuleRecord, SourceRecord
from frostfork.preload.policy import Decision, Installed, Plan, PreloadMode, PreloadPolicy
from frostfork.preload.verdict import Finding, Verdict

__all__ = [
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
]
