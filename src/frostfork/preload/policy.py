# SPDX-License-Identifier: Apache-2.0
"""Which modules the parent imports: one question, answered with the reason."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frostfork import _settings
from frostfork.errors import ConfigurationError
from frostfork.preload.installed import Installed, below
from frostfork.preload.known import HARMLESS, UNSAFE
from frostfork.preload.patterns import matches
from frostfork.preload.planning import Budget, Cost, choose, import_order, mean_bytes

if TYPE_CHECKING:
    from frostfork.preload.ledger import Ledger, ModuleRecord
    from frostfork.preload.verdict import Finding, Verdict

__all__ = ["Decision", "Installed", "Plan", "PreloadMode", "PreloadPolicy", "matches"]

# Airflow gives a DAG file's module a name made of its path; a program's own script is nobody else's module.
_NEVER = ("unusual_prefix_*", "__main__", "__mp_main__")
_UNSAFE = tuple(entry.pattern for entry in UNSAFE)


class PreloadMode(str, enum.Enum):
    """approved: what the user lists. learned: all that children import from distributions. off: nothing.

    In both cases only after a child imported the module without error.
    """

    APPROVED = "approved"
    LEARNED = "learned"
    OFF = "off"


@dataclass(frozen=True)
class Decision:
    """The answer for one module. saving: seconds that a child is spared on average; bytes: what a child paid for it."""

    preload: bool
    reason: str
    saving: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """What the parent is to import.

    decisions: one for each module of the ledger. order: what to import, one after the other; what merely comes along is
    not in it. bytes, seconds: what the parent pays for it all, and for what it preloaded before.
    """

    decisions: dict[str, Decision] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class PreloadPolicy:
    """Decides which modules are worth and safe importing in the parent.

    mode: a PreloadMode or its value.
    approved, deny: patterns such as "pandas" (with all its submodules) or "google.cloud.*". deny wins over all. One
        string is one pattern, here and below.
    excluded: folders of the user's own code, should they lie inside an installed folder.
    min_children, min_files: how many children, of how many different files, must have imported a module.
    max_bytes, max_seconds: what the parent may spend on all preloads together; None is no limit.
    trusted: patterns "module" or "module:kind", to overrule the shipped list, and what children showed of threads and
        canaries of effects.
    """

    installed: Installed
    mode: PreloadMode = PreloadMode.LEARNED
    approved: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    min_children: int = 1
    min_files: int = 1
    max_bytes: int | None = None
    max_seconds: float | None = None
    trusted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _settings.instance("installed", self.installed, Installed)
        try:
            object.__setattr__(self, "mode", PreloadMode(self.mode))
        except ValueError:
            allowed = ", ".join(repr(mode.value) for mode in PreloadMode)
            raise ConfigurationError(f"mode is {self.mode!r}; allowed are {allowed}") from None
        for name in ("approved", "deny", "excluded", "trusted"):
            object.__setattr__(self, name, _settings.names(name, getattr(self, name)))
        _settings.whole("min_children", self.min_children, 1)
        _settings.whole("min_files", self.min_files, 1)
        _settings.whole("max_bytes", self.max_bytes, 0, or_none=True)
        _settings.number("max_seconds", self.max_seconds, "seconds", or_none=True)

    def decide(
        self, module: ModuleRecord, local_names: frozenset[str] = frozenset(), verdict: Verdict | None = None
    ) -> Decision:
        """The answer for one module by itself: without budgets, and without what it would bring along.

        local_names: top-level names that the user's own folders define now, which must stay importable.
        """
        if self.mode is PreloadMode.OFF:
            return Decision(False, "preload is off")
        for reason, _ in self._objections(module, local_names, verdict):
            return Decision(False, reason)
        return Decision(True, self._welcome)

    def plan(
        self,
        ledger: Ledger,
        *,
        loaded: Collection[str] = (),
        preloaded: Collection[str] = (),
        local_names: frozenset[str] = frozenset(),
        verdicts: Mapping[str, Verdict] | None = None,
        refused: Mapping[str, str] | None = None,
    ) -> Plan:
        """Decide about all modules of the ledger: the same for the same facts, in whatever order they were learned.

        loaded: what the parent has. preloaded: what of that it owes to earlier plans, which counts against the budgets.
        refused: what must not be imported for reasons that the caller knows, with these.
        """
        records = {record.name: record for record in sorted(ledger, key=lambda record: record.name)}
        if self.mode is PreloadMode.OFF:
            return Plan({name: Decision(False, "preload is off") for name in records})
        loaded, verdicts, refused = frozenset(loaded), verdicts or {}, refused or {}
        fresh = {name: record for name, record in records.items() if name not in loaded}
        unwanted: dict[str, str] = {}
        harmful: dict[str, str] = {}
        for name, record in fresh.items():
            if name in refused:
                unwanted[name] = harmful[name] = refused[name]
                continue
            for reason, harms in self._objections(record, local_names, verdicts.get(name)):
                unwanted.setdefault(name, reason)
                if harms:
                    harmful[name] = reason
                    break
        before = Cost.of(record for name, record in records.items() if name in loaded and name in preloaded)
        uses = ledger.uses()
        choice = choose(fresh, unwanted, harmful, uses, Budget(self.max_bytes, self.max_seconds), before)

        def decision(name: str) -> tuple[bool, str]:
            if name in loaded:
                mine = name in preloaded
                return mine, "the parent preloaded it" if mine else "the parent has it without a preload"
            if name in choice.along:
                head = choice.along[name]
                return True, self._welcome if head == name else f"comes along with {head}"
            return False, choice.refused.get(name) or unwanted[name]

        def saving(record: ModuleRecord) -> float:
            imports = max(1, record.children) * max(1, ledger.children)
            return record.seconds * uses[record.name] / imports

        decisions = {
            name: Decision(*decision(name), saving(record), mean_bytes(record))
            for name, record in records.items()
        }
        total = before + Cost.of(records[name] for name in choice.along)
        return Plan(decisions, import_order(choice.along, records), total.bytes, total.seconds)

    def tolerates(self, module: str, finding: Finding) -> bool:
        """Whether what a canary found when it imported a module is no reason against that module."""
        doer = finding.module or module
        if self._trusts(module, finding.kind) or self._trusts(doer, finding.kind):
            return True
        top = doer.partition(".")[0]
        return any(
            finding.kind == entry.kind
            and matches(doer, (entry.pattern,))
            and fnmatch.fnmatchcase(finding.detail, entry.detail.format(top=top))
            for entry in HARMLESS
        )

    @property
    def forbidden(self) -> tuple[str, ...]:
        """Patterns of what no import may bring along: the user's, and those of the shipped list but for the trusted."""
        return (*self.deny, *(pattern for pattern in _UNSAFE if not self._trusts(pattern)))

    @property
    def _welcome(self) -> str:
        if self.mode is PreloadMode.APPROVED:
            return "approved by configuration"
        return "imported by a child from an installed distribution"

    def _objections(
        self, module: ModuleRecord, local_names: frozenset[str], verdict: Verdict | None
    ) -> Iterator[tuple[str, bool]]:
        """All that speaks against a module, in the order of the rules; True: and against whatever imports it, too."""
        name = module.name
        if matches(name, self.deny):
            yield "denied by configuration", True
        if matches(name, _NEVER):
            yield "the name of a script or DAG file", False
        if module.children == 0:
            yield f"failed in a child: {module.last_error}", False
        if module.threads and not self._trusts(name, "thread"):
            yield "its import starts a thread, which forked children would not have", True
        if name.partition(".")[0] in local_names:
            yield "the DAG folder has a file or folder of this name", True
        if any(below(origin, self.excluded) for origin in module.origins):
            yield "lies in a folder of the user's own code", True
        if not self.installed.holds(name, module.origins):
            yield "not from an installed distribution", not self.installed.contains(module.origins)
        if self.mode is PreloadMode.APPROVED and not matches(name, self.approved):
            yield "not approved by configuration", False
        if module.children < self.min_children:
            yield (
                f"{module.children} children imported it, fewer than min_children = {self.min_children}",
                False,
            )
        files = max(1, module.files)  # what a child ran may be unknown, but it ran something
        if files < self.min_files:
            yield f"{files} files import it, fewer than min_files = {self.min_files}", False
        if matches(name, _UNSAFE) and not self._trusts(name):
            reason = next(entry.reason for entry in UNSAFE if matches(name, (entry.pattern,)))
            yield f"known to be unsafe before a fork: {reason}", True
        for finding in verdict.findings if verdict is not None else ():
            if not self.tolerates(name, finding):
                # Whoever imports what merely raised may well expect that.
                harms = finding.kind not in ("raised", "denied")
                yield f"in the canary, {finding.module or name} {finding.detail} ({finding.kind})", harms

    def _trusts(self, module: str, kind: str = "") -> bool:
        for entry in self.trusted:
            pattern, _, kinds = entry.partition(":")
            if kinds in ("", kind) and matches(module, (pattern,)):
                return True
        return False
