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
    children: int = 0  # that imported it without error
    failures: int = 0
    threads: int = 0  # children in which the import left a thread running
    last_error: str | None = None
    seconds: float = 0.0  # own, over all children
    cumulative: float = 0.0
    bytes: int = 0  # own private growth of the process, over all children
    cumulative_bytes: int = 0
    origins: set[str] = field(default_factory=set)
    importers: set[str] = field(default_factory=set)  # modules during whose import it was imported
    sources: set[str] = field(default_factory=set)  # files whose children imported it

    @property
    def files(self) -> int:
        """How many files' children imported it."""
        return len(self.sources)


class Ledger:
    """Observations added up by module.

    hot_code: what children ran, by file, first line and qualified name: in how many of them.
    """

    def __init__(self) -> None:
        self._modules: dict[str, ModuleRecord] = {}
        self.children = 0
        self.hot_code: dict[tuple[str, int, str], int] = {}

    def record(self, observation: Observation, source: str | None = None) -> list[ModuleRecord]:
        """Add one child's observation; returns the records it touched, in the order in which it began to import.

        source: what the child ran, such as the path of a DAG file.
        """
        self.children += 1
        for code in observation.hot_code:
            self.hot_code[code] = self.hot_code.get(code, 0) + 1
        touched: dict[str, ModuleRecord] = {}
        for module in observation.modules:
            record = self._modules.get(module.name)
            if record is None:
                record = self._modules[module.name] = ModuleRecord(module.name)
            touched[module.name] = record
            if module.error is not None:
                record.failures += 1
                record.last_error = module.error
                continue
            record.children += 1
            record.threads += module.name in observation.threads
            record.seconds += module.seconds
            record.cumulative += module.cumulative
            record.bytes += module.bytes
            record.cumulative_bytes += module.cumulative_bytes
            if module.importer is not None:
                record.importers.add(module.importer)
            if module.origin is not None:
                record.origins.add(module.origin)
            if source is not None:
                record.sources.add(source)
        return list(touched.values())

    def get(self, name: str) -> ModuleRecord | None:
        return self._modules.get(name)

    def __iter__(self) -> Iterator[ModuleRecord]:
        return iter(self._modules.values())

    def __len__(self) -> int:
        return len(self._modules)
