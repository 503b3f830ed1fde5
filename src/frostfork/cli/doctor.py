# SPDX-License-Identifier: Apache-2.0
"""`frostfork doctor`: what this kernel, interpreter and container offer, and what each means."""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from frostfork import _core
from frostfork.cli.output import writing


@dataclass(frozen=True)
class Finding:
    """One feature. ok is None for a fact that is neither good nor bad."""

    area: str
    feature: str
    ok: bool | None
    found: str
    consequence: str


def examine() -> list[Finding]:
    """Look at this process and machine."""
    return [*_kernel(), *_interpreter(), *_container()]


def _kernel() -> Iterator[Finding]:
    kernel = _core.kernel()
    yield Finding("kernel", "release", None, platform.release(), "features are probed, not read off this")
    readable = kernel["pagemap"] == 0
    reason = "" if readable else os.strerror(int(str(kernel["pagemap"])))
    yield Finding(
        "kernel", "pagemap", readable, "readable" if readable else reason,
        "page counts, baselines and unshared pages work" if readable
        else "no page counts for this process: it is another user's or not dumpable (PR_SET_DUMPABLE)",
    )  # fmt: skip
    yield _flag(
        "kernel", "frame numbers", bool(kernel["frame_numbers"]),
        "copied pages are known exactly", "copied is unknown, unshared still counts: CAP_SYS_ADMIN would show frames",
    )  # fmt: skip
    yield _flag(
        "kernel", "PAGEMAP_SCAN", bool(kernel["pagemap_scan"]),
        "holes in mappings cost nothing, huge pages are counted",
        "before Linux 6.7: large reservations cost 2 ns a page, huge pages are unknown",
    )  # fmt: skip
    yield _flag(
        "kernel", "PROCMAP_QUERY", bool(kernel["procmap_query"]),
        "mappings are listed in binary", "before Linux 6.11: mappings are read as text, three times slower",
    )  # fmt: skip
    yield _flag(
        "kernel", "MADV_COLLAPSE", bool(kernel["madv_collapse"]),
        "large parents can be put on huge pages before a fork", "before Linux 6.1: no huge pages on request",
    )  # fmt: skip
    yield _flag(
        "kernel", "memfd", bool(kernel["memfd"]),
        "children report through files in memory", "children report through temporary files (seccomp forbids memfd)",
    )  # fmt: skip
    exact = _exact_exclusivity()
    yield Finding(
        "kernel", "exclusive bit", exact, {True: "exact", False: "approximate", None: "not known"}[exact],
        "an exclusive page is one that no other process maps" if exact is not False
        else "CONFIG_NO_PAGE_MAPCOUNT: parts of large folios count as shared until all of the folio is ours",
    )  # fmt: skip
    huge = _read("/sys/kernel/mm/transparent_hugepage/enabled")
    usable = _chosen(huge) in ("always", "madvise")
    yield Finding(
        "kernel", "transparent huge pages", usable, _chosen(huge),
        "warmup's collapse puts large parents on them; a child that writes still copies small pages" if usable
        else "warmup's collapse is refused",
    )  # fmt: skip
    yield _merging()


def _merging() -> Finding:
    running = {"0": "not running", "1": "running"}.get(_read("/sys/kernel/mm/ksm/run"), "none")
    if running == "running":
        try:
            _core.merge_get()
        except OSError as error:
            running, meaning = "refused", f"warmup's merge is refused: {os.strerror(error.errno or 0)}"
        else:
            meaning = "warmup's merge can be asked for; it costs a kernel thread's time"
    else:
        meaning = (
            "warmup's merge is refused, which is off by default; root starts KSM in /sys/kernel/mm/ksm/run"
        )
    return Finding("kernel", "KSM", None, running, meaning)


def _interpreter() -> Iterator[Finding]:
    version = sys.version_info
    yield Finding(
        "interpreter",
        platform.python_implementation(),
        version >= (3, 10),
        platform.python_version(),
        sys.executable,
    )
    yield _flag(
        "interpreter", "immortal objects", _core.immortal_supported(),
        "warmup's immortalize: reference counts of shared objects are left alone (PEP 683)",
        "before 3.12 and free-threaded: every use of a shared object writes its reference count",
    )  # fmt: skip
    yield _flag(
        "interpreter", "names hot code", version >= (3, 12),
        "sys.monitoring shows warmup's compact_code which functions run, at nearly no cost",
        "before 3.12: a profile function shows it, which slows each call of the children that are asked",
    )  # fmt: skip
    other = _core.heap_allocator()
    yield Finding(
        "interpreter", "malloc", not other, other or "glibc",
        "warmup's drain_heap is refused: it knows glibc's heap only" if other
        else "warmup's drain_heap holds free memory that children would fill in shared pages",
    )  # fmt: skip
    threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    yield Finding(
        "interpreter", "free-threaded", not threaded, "yes" if threaded else "no",
        "the child freezes after the at-fork hooks, not before" if threaded else "the child freezes before any hook",
    )  # fmt: skip
    yield Finding(
        "interpreter", "collector", gc.isenabled(), f"{'on' if gc.isenabled() else 'off'}, {gc.get_threshold()}",
        "its collections are what freezing keeps away from shared pages",
    )  # fmt: skip


def _container() -> Iterator[Finding]:
    capable = _has_capability(21)
    yield _flag("container", "CAP_SYS_ADMIN", capable, "frame numbers are shown", "frame numbers are hidden")
    yield Finding(
        "container",
        "user",
        None,
        f"uid {os.getuid()}",
        "other users' processes need CAP_SYS_PTRACE to be seen",
    )
    cgroup = "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1 or none"
    limit = _read("/sys/fs/cgroup/memory.max") or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    limited = limit.isdigit() and int(limit) < 1 << 60
    yield Finding(
        "container", "memory limit", None, f"{int(limit) >> 20} MB" if limited else "none", f"cgroup {cgroup}"
    )
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    yield Finding(
        "container", "process limit", None, "none" if soft == resource.RLIM_INFINITY else str(soft),
        "fork fails with EAGAIN at this many processes of the user",
    )  # fmt: skip
    overcommit = _read("/proc/sys/vm/overcommit_memory")
    yield Finding(
        "container", "overcommit", overcommit != "2", overcommit or "unknown",
        "mode 2 charges a fork for all memory that it might copy" if overcommit == "2"
        else "a fork of a large parent is not refused for memory that it shares",
    )  # fmt: skip


def _flag(area: str, feature: str, ok: bool, good: str, bad: str) -> Finding:
    return Finding(area, feature, ok, "yes" if ok else "no", good if ok else bad)


def _exact_exclusivity() -> bool | None:
    """Whether bit 56 of pagemap is exact, as far as the kernel's configuration is at hand."""
    import gzip

    for path, opener in ((f"/boot/config-{platform.release()}", open), ("/proc/config.gz", gzip.open)):
        try:
            with opener(path, "rt") as config:
                return "CONFIG_NO_PAGE_MAPCOUNT=y" not in config.read()
        except OSError:
            continue
    return None


def _has_capability(number: int) -> bool:
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _chosen(choices: str) -> str:
    """The word in brackets of a file such as "always [madvise] never"."""
    return choices.partition("[")[2].partition("]")[0] or "unknown"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(as_json: bool) -> None:
    """What this kernel, interpreter and container offer, each with its consequence."""
    findings = examine()
    if as_json:
        with writing():
            click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "feature", "found", "what it means"):
        table.add_column(column, overflow="fold")
    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            table.add_row("", f"[bold]{area}[/bold]", "", "")
        mark = {True: "[green]✓[/green]", False: "[yellow]✗[/yellow]", None: "·"}[finding.ok]
        table.add_row(mark, finding.feature, finding.found, finding.consequence)
    with writing():
        Console().print(table)
