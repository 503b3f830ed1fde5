# SPDX-License-Identifier: Apache-2.0
"""The memory of the loop: what children imported and ran, added up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from frostfork.observe import Observation


@dataclass
class ModuleRecord:
    """What is known of one module."""

    name: str
    rank: int  # the order in which the children began to import
    children: int = 0  # that imported it without error
    failures: int = 0
    threads: int = 0  # children in which the import left a thread running
    last_error: str | None = None
    seconds: float = 0.0  # own, over all children
    cumulative: float = 0.0
    origins: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)  # files whose children imported it


class Ledger:
    """Observations added up by module.

    hot_code: what children ran, by file, first line and qualified name: in how many of them.
    """

    def __init__(self) -> None:
        self._modules: dict[str, ModuleRecord] = {}
        self.hot_code: dict[tuple[str, int, str], int] = {}

    def record(self, observation: Observation, source: str | None = None) -> list[ModuleRecord]:
        """Add one child's observation; returns the records it touched, in the order of their ranks.

        source: what the child ran, such as the path of a DAG file.
        """
        for code in observation.hot_code:
            self.hot_code[code] = self.hot_code.get(code, 0) + 1
        touched: dict[str, ModuleRecord] = {}
        for module in observation.modules:
            record = self._modules.get(module.name)
            if record is None:
                record = self._modules[module.name] = ModuleRecord(module.name, rank=len(self._modules))
            touched[module.name] = record
            if module.error is not None:
                record.failures += 1
                record.last_error = module.error
                continue
            record.children += 1
            record.threads += module.name in observation.threads
            record.seconds += module.seconds
            record.cumulative += module.cumulative
            if module.origin is not None:
                record.origins.add(module.origin)
            if source is not None:
                record.sources.add(source)
        return sorted(touched.values(), key=lambda record: record.rank)

    def get(self, name: str) -> ModuleRecord | None:
        return self._modules.get(name)

    def __iter__(self) -> Iterator[ModuleRecord]:
        return iter(sorted(self._modules.values(), key=lambda record: record.rank))

    def __len__(self) -> int:
        return len(self._modules)
