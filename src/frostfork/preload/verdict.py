# SPDX-License-Identifier: Apache-2.0
"""What a canary found out about a module: plain data, which the policy judges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

_DESCRIBED = {
    # How the import ended, if not well.
    "crashed": "a signal ended the process",
    "hung": "it was not done in time",
    "exited": "it ended the process, by sys.exit or by os._exit",
    "raised": "it raised another exception",
    "memory": "it took more memory than it was given",
    "denied": "it would import what is denied by configuration, or what the user's own folders have a name for",
    # What it left behind.
    "thread": "a thread, Python's or a library's own",
    "process": "a child process, or a daemon that is no longer its child",
    "file": "an open file, pipe or the like; or it closed what was not its own",
    "socket": "an open socket",
    "lock": "a lock on a file",
    "output": "more than a megabyte on standard output and standard error",
    # What it changed.
    "signal": "a signal handler, Python's or another, or the mask of blocked signals",
    "environment": "an environment variable, in os.environ or behind its back",
    "locale": "the locale",
    "directory": "the working directory",
    "umask": "the mode of files made later",
    "path": "sys.path, sys.meta_path, sys.path_hooks, or a module that was there before",
    "logging": "handlers, levels or classes of logging that were there before",
    "warnings": "the filters or the display of warnings",
    "hook": "sys.excepthook, threading.excepthook, sys.unraisablehook, sys.displayhook or the like",
    "start_method": "the default start method of multiprocessing",
    "random": "the state of random or numpy.random",
    "event_loop": "the event-loop policy of asyncio",
    "at_fork": "functions that run at each fork",
    "trace": "a trace or profile function, a monitoring tool, or an audit hook",
    "atexit": "functions that run at the end of the process",
    "gc": "whether, when and with what callbacks garbage is collected",
    "limit": "the recursion limit, the switch interval, or a limit or priority of the process",
    "patched": "a builtin, or a function or class of the standard library, has another's in its place",
    "library": "a shared library that is known to be unsafe to load before a fork",
}

KINDS: tuple[str, ...] = tuple(_DESCRIBED)
DESCRIPTIONS: Mapping[str, str] = MappingProxyType(_DESCRIBED)

# What ends an import, as against what it leaves behind.
ENDINGS = frozenset({"crashed", "hung", "exited", "raised", "memory", "denied"})


class Finding(NamedTuple):
    """One effect of an import, of one of KINDS.

    detail: what changed, as a reason for people.
    module: whose own code did it: the imported module itself, or one that it brought along. It is what a pattern of
        a list of harmless effects is about; "" where a reader has only the Verdict's own module.
    """

    kind: str
    detail: str
    module: str = ""


class Verdict(NamedTuple):
    """What a canary found when it imported `module`, with all that this brought along.

    findings: every effect seen, also those that are known not to matter.
    seconds: what the import took. bytes: private growth of the canary; 0 for what another module brought along.
    """

    module: str
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    bytes: int = 0

    @property
    def passed(self) -> bool:
        """No effect at all. What has some may be let through by a policy."""
        return not self.findings


def was_killed(verdict: Verdict) -> bool:
    """Whether SIGKILL ended its canary or the keeper, which may have been for any reason."""
    return any(
        finding.kind == "crashed" and finding.detail.endswith(("SIGKILL", "was killed"))
        for finding in verdict.findings
    )


def refusals(
    verdicts: Iterable[Verdict], tolerates: Callable[[str, Finding], bool]
) -> dict[str, tuple[Finding, ...]]:
    """By module: the effects that speak against it and against whatever would import it.

    Without what merely raised: who imports that may well expect it.
    """
    found = {}
    for verdict in verdicts:
        bad = tuple(
            finding
            for finding in verdict.findings
            if finding.kind not in ("raised", "denied") and not tolerates(verdict.module, finding)
        )
        if bad:
            found[verdict.module] = bad
    return found
