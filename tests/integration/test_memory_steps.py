# SPDX-License-Identifier: Apache-2.0
"""Huge pages and merged ones: what these steps of a warmup do to pages, and what they say where they cannot."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import frostfork
from frostfork import UnsupportedStepError
from tests.integration.forking import run_script

COLLAPSE = import_module("frostfork.steps.collapse")
MERGE = import_module("frostfork.steps.merge")

COLLAPSED = """
    import json, mmap, os
    import frostfork
    from frostfork.steps.collapse import collapse

    held = [[str(at), (at, at + 0.5)] for at in range(300_000)]
    before = frostfork.page_counts()
    outcome = collapse(fewest=1)
    after = frostfork.page_counts()
    again = collapse(fewest=1)
    into_parent, from_child = os.pipe()
    pid = frostfork.fork(baseline=True)
    if pid == 0:
        baseline = frostfork.child_baseline()
        private = frostfork.page_counts().exclusive
        for made in held[::15000]:
            made.append(None)
        os.write(from_child, b"%d %d" % (baseline.compare().unshared, frostfork.page_counts().exclusive - private))
        os._exit(0)
    os.waitpid(pid, 0)
    unshared, private = map(int, os.read(into_parent, 100).split())
    print(json.dumps({
        "count": outcome.count, "bytes": outcome.bytes, "idle": outcome.idle, "details": outcome.details,
        "huge": (after.huge or 0) - (before.huge or 0), "grown": after.present - before.present,
        "again": again.count, "already": again.details["already"], "unshared": unshared, "private": private,
    }))
"""


def needs_collapse() -> None:
    try:
        COLLAPSE.collapse()
    except UnsupportedStepError as error:
        pytest.skip(str(error))


def test_collapse_makes_huge_pages_once_and_children_copy_small_ones() -> None:
    needs_collapse()
    found = run_script(COLLAPSED)
    if found["details"]["failed"]:
        pytest.skip(f"this machine has too few free huge pages: {found['idle']}")
    assert found["count"] >= 5
    assert found["bytes"] == found["count"] * 2 << 20
    if frostfork.page_counts().huge is not None:
        assert found["huge"] == found["count"] * 512
        assert found["already"] >= found["count"]
        assert found["again"] <= 2  # what the interpreter filled meanwhile
    assert found["details"]["resident_growth"] // frostfork.PAGE_SIZE <= found["count"] * 52
    assert abs(found["grown"] - found["details"]["resident_growth"] // frostfork.PAGE_SIZE) <= 600
    # Twenty lists far apart, what they grow into, and the interpreter's own: not twenty times 512 pages.
    assert 20 <= found["unshared"] <= 500
    assert found["private"] <= 500


def test_a_small_process_is_not_collapsed() -> None:
    needs_collapse()
    step = run_script(
        """
    import json
    import frostfork
    print(json.dumps(frostfork.warmup(steps=["collapse"]).steps["collapse"]))
    """
    )
    assert step[1] == "skipped"
    assert "huge" in step[2]


def test_collapse_respects_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = tmp_path / "enabled"
    setting.write_text("always madvise [never]\n")
    monkeypatch.setattr(COLLAPSE, "_SETTING", str(setting))
    with pytest.raises(UnsupportedStepError, match=r"never|6\.1"):
        COLLAPSE.collapse()


def test_merge_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(MERGE, "_RUN", str(run))
    with pytest.raises(UnsupportedStepError, match="cannot be read"):
        MERGE.merge()
    run.write_text("0\n")
    with pytest.raises(UnsupportedStepError, match="root turns it on"):
        MERGE.merge()


def test_merge_is_inherited_and_undone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.write_text("1\n")
    first, second, child, after = run_script(
        f"""
    import json, os
    from importlib import import_module
    from frostfork import _core
    from frostfork.errors import UnsupportedStepError
    step = import_module("frostfork.steps.merge")
    step._RUN = {str(run)!r}
    try:
        first = step.merge()
    except UnsupportedStepError as error:
        print(json.dumps([str(error), 0, 0, 0]))
        raise SystemExit
    second = step.merge()
    pid = os.fork()
    if pid == 0:
        os._exit(_core.merge_get())
    child = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    step.unmerge()
    print(json.dumps([first.count, second.idle, child, _core.merge_get()]))
    """
    )
    if isinstance(first, str):
        pytest.skip(first)
    assert (first, child, after) == (1, 1, False)
    assert "already" in second


RESERVED = """
    import json, os, sys
    import pyarrow
    import frostfork

    def private():
        with open("/proc/self/smaps_rollup") as file:
            return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Private_"))

    reports = [frostfork.warmup(steps=["reserve"]).steps["reserve"] for _ in range(2)] if RESERVE else []
    into_parent, from_child = os.pipe()
    pid = frostfork.fork()
    if pid == 0:
        before = private()
        held = [pyarrow.allocate_buffer(size) for size in (100, 8_000, 20_000)]
        os.write(from_child, b"%d" % (private() - before))
        os._exit(0)
    os.waitpid(pid, 0)
    print(json.dumps({"child": int(os.read(into_parent, 100)), "reports": [step._asdict() for step in reports]}))
"""


def test_a_child_shares_the_first_memory_of_an_allocator() -> None:
    if find_spec("pyarrow") is None:  # not imported here: it would leave a thread in the tests' process
        pytest.skip("needs pyarrow (locks/test.txt has it)")
    alone = run_script(RESERVED.replace("RESERVE", "False"))["child"]
    found = run_script(RESERVED.replace("RESERVE", "True"))
    first, second = found["reports"]
    assert (first["status"], first["count"]) == ("done", 1)
    assert second["status"] == "skipped", "once is enough"
    assert "no library" in second["reason"]
    if first["bytes"] < 2 << 20:
        pytest.skip("pyarrow's allocator has no huge pages here")
    assert found["child"] < 300_000
    assert alone > 2 << 20, "else the step would save nothing"


def test_a_library_that_is_not_loaded_is_not_imported_to_reserve_memory() -> None:
    found = run_script(
        """
        import json, sys
        import frostfork
        step = frostfork.warmup(steps=["reserve"]).steps["reserve"]
        print(json.dumps([step.status, "pyarrow" in sys.modules]))
        """
    )
    assert found == ["skipped", False]
