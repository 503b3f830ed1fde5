# SPDX-License-Identifier: Apache-2.0
"""The ``[frostfork]`` section of Airflow's configuration, as plain data.

Airflow finds the values where its users put them: ``AIRFLOW__FROSTFORK__*``, airflow.cfg, then the defaults that
``provider`` declares. The same defaults are the fallback here, since ``policy`` asks while Airflow is still
being imported, and not every release knows its providers' options by then (3.3.2 does, in 0.04 ms).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frostfork.airflow.provider import COMPONENTS, PRELOAD_MODES, SECTION, STALE, STEPS, provider_info
from frostfork.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Settings", "is_enabled", "is_pattern", "load", "parse"]

_PATTERN = re.compile(r"[\w*?]+(\.[\w*?]+)*")
_TRUST = re.compile(_PATTERN.pattern + r"(:[a-z_]+)?")
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}  # Airflow's words


@dataclass(frozen=True)
class Settings:
    """Checked settings; names and meanings are those of the options in ``provider``. steps: those that are on."""

    enabled: bool
    components: tuple[str, ...]
    preload: str
    approved: tuple[str, ...]
    deny: tuple[str, ...]
    trust: tuple[str, ...]
    min_children: int
    min_files: int
    max_bytes: int | None
    max_seconds: int | None
    canary: bool
    canary_seconds: int
    canary_bytes: int
    ledger: str
    ledger_days: int
    stale: str
    zygote: bool
    steps: tuple[str, ...]
    blame: int

    def covers(self, component: str) -> bool:
        """Whether frostfork is to act in this component."""
        return self.enabled and component in self.components


def load() -> Settings:
    """Read Airflow's configuration; raises ConfigurationError for a value that means nothing."""
    return parse({option: _ask_airflow(option) for option in _options()})


def is_enabled() -> bool:
    """The switch alone: what else is wrong does not matter while it is off."""
    return _boolean("enabled", _ask_airflow("enabled"))


def parse(given: Mapping[str, str]) -> Settings:
    """Settings from the text of the options given; the others have their defaults."""
    text = {option: given.get(option, declared["default"]).strip() for option, declared in _options().items()}
    return Settings(
        enabled=_boolean("enabled", text["enabled"]),
        components=_components("components", text["components"]),
        preload=_choice("preload", text["preload"], tuple(PRELOAD_MODES)),
        approved=_patterns("approved", text["approved"]),
        deny=_patterns("deny", text["deny"]),
        trust=_patterns("trust", text["trust"], _TRUST),
        min_children=_count("min_children", text["min_children"], least=1),
        min_files=_count("min_files", text["min_files"], least=1),
        max_bytes=(_count("max_megabytes", text["max_megabytes"]) << 20) or None,
        max_seconds=_count("max_seconds", text["max_seconds"]) or None,
        canary=_boolean("canary", text["canary"]),
        canary_seconds=_count("canary_seconds", text["canary_seconds"], least=1),
        canary_bytes=_count("canary_megabytes", text["canary_megabytes"], least=1) << 20,
        ledger=text["ledger"],
        ledger_days=_count("ledger_days", text["ledger_days"], least=1),
        stale=_choice("stale", text["stale"], tuple(STALE)),
        zygote=_boolean("zygote", text["zygote"]),
        blame=_count("blame", text["blame"]),
        steps=tuple(name for name in STEPS if _boolean(name, text[name])),
    )


def is_pattern(word: str) -> bool:
    """Whether a list of module names, such as that of deny, may hold this word."""
    return _PATTERN.fullmatch(word) is not None


def _ask_airflow(option: str) -> str:
    from airflow.configuration import conf

    return str(conf.get(SECTION, option, fallback=_options()[option]["default"]))


def _options() -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = provider_info()["config"][SECTION]["options"]
    return options


def _boolean(option: str, value: str) -> bool:
    word = value.partition("#")[0].strip().lower()  # Airflow cuts a trailing comment from booleans too
    if word not in _BOOLEANS:
        raise _wrong(option, value, "True or False")
    return _BOOLEANS[word]


def _count(option: str, value: str, *, least: int = 0) -> int:
    word = value.partition("#")[0].strip()
    if not re.fullmatch(r"[0-9]{1,9}", word) or int(word) < least:
        raise _wrong(option, value, f"a whole number from {least} to 999999999")
    return int(word)


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> str:
    word = value.lower()
    if word not in allowed:
        raise _wrong(option, value, " or ".join((", ".join(allowed[:-1]), allowed[-1])))
    return word


def _components(option: str, value: str) -> tuple[str, ...]:
    words = _words(value.lower())
    # A list that only leaves out must start from everything, or it would say nothing.
    chosen = set(COMPONENTS) if words and all(word.startswith("-") for word in words) else set()
    for word in words:
        name = word.removeprefix("-").strip()
        if name != "all" and name not in COMPONENTS:
            allowed = ", ".join(("all", *COMPONENTS))
            raise _wrong(option, value, f"a list of {allowed}; a leading minus leaves one out", word)
        names = set(COMPONENTS) if name == "all" else {name}
        chosen = chosen - names if word.startswith("-") else chosen | names
    return tuple(name for name in COMPONENTS if name in chosen)


def _patterns(option: str, value: str, allowed: re.Pattern[str] = _PATTERN) -> tuple[str, ...]:
    words = _words(value)
    for word in words:
        if not allowed.fullmatch(word):
            rest = ", each with :KIND if need be" if allowed is _TRUST else ""
            raise _wrong(
                option, value, f"a comma-separated list of module names, in which * may stand{rest}", word
            )
    return words


def _words(value: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in value.split(","))))


def _wrong(option: str, value: str, allowed: str, part: str | None = None) -> ConfigurationError:
    where = "" if part is None or part == value else f" ({part!r})"
    return ConfigurationError(f"[{SECTION}] {option} is {value!r}{where}, but must be {allowed}.")
