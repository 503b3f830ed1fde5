# SPDX-License-Identifier: Apache-2.0
"""The parent imports what it may, and survives every import."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from frostfork import (
    Installed,
    Journal,
    ModuleImport,
    Observation,
    Preloader,
    PreloadMode,
    PreloadPolicy,
    find_installed,
    fork,
    observe,
)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that counts as installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("ffp_")]:
        del sys.modules[name]


def preloader(library: Path, *names: str, **options: object) -> Preloader:
    installed = Installed((str(library),), frozenset(names))
    return Preloader(PreloadPolicy(installed, **options))


def seen(library: Path, *names: str, error: str | None = None) -> Observation:
    return Observation(
        [
            ModuleImport(name, str(library / f"{name}.py"), float(i), 0.1, 0.2, error)
            for i, name in enumerate(names)
        ]
    )


def test_good_modules_are_imported_once(library: Path) -> None:
    (library / "ffp_good.py").write_text("import ffp_below\n")
    (library / "ffp_below.py").write_text("")
    loader = preloader(library, "ffp_good", "ffp_below")
    both = seen(library, "ffp_good", "ffp_below")
    both.modules[1] = both.modules[1]._replace(importer="ffp_good")
    assert loader.learn(both) == ["ffp_good"]
    assert "ffp_below" in sys.modules
    assert loader.learn(seen(library, "ffp_good")) == []
    assert list(loader.report.preloaded) == ["ffp_good", "ffp_below"]
    assert loader.report.preloaded["ffp_below"] == 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise SystemExit(1)", "SystemExit: 1"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise BaseException('odd')", "BaseException: odd"),
        ("1 / 0", "ZeroDivisionError"),
        ("def", "SyntaxError"),
        ("class E(Exception):\n def __str__(self): raise ValueError\nraise E", "E"),
    ],
)
def test_no_exception_ends_the_parent_and_none_is_tried_twice(library: Path, body: str, reason: str) -> None:
    counter = library / "tries"
    (library / "ffp_bad.py").write_text(
        f"with open({str(counter)!r}, 'a') as file: file.write('x')\n{body}\n"
    )
    loader = preloader(library, "ffp_bad")
    for _ in range(3):
        assert loader.learn(seen(library, "ffp_bad")) == []
    assert reason in loader.report.refused["ffp_bad"]
    assert "failed in the parent" in loader.report.refused["ffp_bad"]
    assert not counter.exists() or counter.read_text() == "x"


def test_only_what_the_policy_allows(library: Path) -> None:
    (library / "ffp_a.py").write_text("")
    (library / "ffp_b.py").write_text("")
    assert preloader(library, "ffp_a", mode=PreloadMode.OFF).learn(seen(library, "ffp_a")) == []
    assert preloader(library, "ffp_a", deny=("ffp_*",)).learn(seen(library, "ffp_a")) == []
    assert preloader(library, "ffp_a").learn(seen(library, "ffp_a", error="OSError")) == []
    approved = preloader(library, "ffp_a", "ffp_b", mode=PreloadMode.APPROVED, approved=("ffp_b",))
    assert approved.learn(seen(library, "ffp_a", "ffp_b")) == ["ffp_b"]
    assert "ffp_a" not in sys.modules


def killed(library: Path, handler: str) -> subprocess.CompletedProcess[str]:
    """A process with this handler of SIGTERM, which preloads ffp_kill, which sends the signal."""
    script = f"""
        import signal, sys
        sys.path.insert(0, {str(library)!r})
        from frostfork import *
        signal.signal(signal.SIGTERM, {handler})
        loader = Preloader(PreloadPolicy(Installed(({str(library)!r},), frozenset(["ffp_kill"]))))
        module = ModuleImport("ffp_kill", {str(library / "ffp_kill.py")!r}, 0.0, 0.0, 0.0, None)
        loader.learn(Observation([module]))
        print("still here")
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
    )


def test_a_signal_during_an_import_waits_and_is_not_swallowed(library: Path) -> None:
    """Airflow's SIGTERM handler raises SystemExit: the guard must not take it for the module's."""
    (library / "ffp_kill.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\ndone = True\n"
    )
    done = killed(library, "lambda *a: sys.exit(5)")
    assert (done.returncode, done.stdout) == (5, ""), done.stderr


def test_signal_handlers_that_an_import_changed_are_put_back(library: Path) -> None:
    (library / "ffp_signal.py").write_text("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n")
    before = signal.getsignal(signal.SIGTERM)
    assert preloader(library, "ffp_signal").learn(seen(library, "ffp_signal")) == ["ffp_signal"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_installed_code_of_this_interpreter() -> None:
    installed = find_installed()
    assert installed.holds("psutil", [__import__("psutil").__file__])
    assert installed.holds("json.decoder", [__import__("json").decoder.__file__])
    assert installed.holds("sys", ["built-in"])
    assert not installed.holds("psutil", ["/srv/dags/psutil.py"])
    assert not installed.holds("tests", [os.path.abspath(__file__)])


def test_a_local_helper_is_decided_once_and_again_when_it_succeeds_elsewhere(library: Path) -> None:
    asked: list[int] = []

    def local_names() -> frozenset[str]:
        asked.append(1)
        return frozenset()

    loader = preloader(library, "ffp_later")
    loader._local_names = local_names
    for _ in range(3):
        loader.learn(seen(library, "ffp_helper"))
        loader.learn(seen(library, "ffp_later", error="OSError"))
    assert asked == []
    assert set(loader.report.refused) == {"ffp_helper", "ffp_later"}
    (library / "ffp_later.py").write_text("")
    assert loader.learn(seen(library, "ffp_later")) == ["ffp_later"]
    assert len(asked) == 1
    assert set(loader.report.refused) == {"ffp_helper"}


def test_what_is_not_installed_is_no_refusal(library: Path) -> None:
    loader = preloader(library)
    loader.learn(seen(library, "ffp_optional", error="ModuleNotFoundError"))
    assert loader.report.refused == {}


def test_what_is_denied_does_not_come_along(library: Path) -> None:
    (library / "ffp_pkg").mkdir()
    (library / "ffp_pkg" / "__init__.py").write_text(
        "from ffp_pkg import part\ntry:\n    import ffp_denied\nexcept ImportError:\n    ffp_denied = None\n"
    )
    (library / "ffp_pkg" / "part.py").write_text("")
    (library / "ffp_denied.py").write_text("")
    loader = preloader(library, "ffp_pkg", deny=("ffp_denied",))
    assert loader.learn(seen(library, "ffp_pkg")) == []
    assert loader.report.refused["ffp_pkg"] == "would import ffp_denied, which is denied"
    assert not [name for name in sys.modules if name.startswith("ffp_")]
    assert not [finder for finder in sys.meta_path if type(finder).__name__ == "ImportGuard"]


def test_what_the_users_folders_define_does_not_come_along(library: Path) -> None:
    (library / "ffp_outer.py").write_text("import ffp_helper\n")
    (library / "ffp_helper.py").write_text("")
    loader = preloader(library, "ffp_outer", "ffp_helper")
    loader._local_names = lambda: frozenset({"ffp_helper"})
    assert loader.learn(seen(library, "ffp_outer")) == []
    assert "ffp_helper, a name that the DAG folder has too" in loader.report.refused["ffp_outer"]


def test_no_import_begins_after_the_budget(library: Path) -> None:
    (library / "ffp_one.py").write_text("")
    loader = preloader(library, "ffp_one")
    assert loader.learn(seen(library, "ffp_one"), budget_seconds=-1) == []
    assert loader.learn(seen(library, "ffp_one")) == ["ffp_one"]


@pytest.mark.parametrize("handler", ["signal.SIG_DFL", "lambda *a: sys.exit(5)"])
def test_a_second_signal_is_handled_at_once(library: Path, handler: str) -> None:
    kill = "os.kill(os.getpid(), signal.SIGTERM)\n"
    (library / "ffp_kill.py").write_text(f"import os, signal\n{kill}{kill}print('went on')\n")
    done = killed(library, handler)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM if "DFL" in handler else 5, ""), done.stderr


def observed_in_a_child(folder: Path, statements: str) -> Observation:
    """What a forked child imports that runs these."""
    journal = Journal()
    pid = fork()
    if pid == 0:
        try:
            with observe(journal, pages=False):
                exec(statements, {})  # as a DAG file would
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    with contextlib.closing(journal):
        return Observation.from_journal(journal)


def test_a_circular_import_is_entered_from_the_side_from_which_children_entered(library: Path) -> None:
    """The names are such that any other order, by name or by who was imported last, meets the circle from inside."""
    (library / "ffp_z.py").write_text("VALUE = 1\nfrom ffp_a import OTHER\n")
    (library / "ffp_a.py").write_text("from ffp_z import VALUE\nOTHER = VALUE + 1\n")
    (library / "ffp_user.py").write_text("import ffp_z\n")
    seen_there = observed_in_a_child(library, "import ffp_user")
    assert [module.name for module in seen_there.modules] == ["ffp_user", "ffp_z", "ffp_a"]
    inside = subprocess.run(
        [sys.executable, "-c", "import ffp_a"], cwd=library, capture_output=True, text=True, timeout=60
    )
    assert "cannot import name 'OTHER'" in inside.stderr

    loader = preloader(library, "ffp_z", "ffp_a", "ffp_user")
    assert loader.learn(seen_there) == ["ffp_user"]
    assert {"ffp_z", "ffp_a"} <= sys.modules.keys()
    for name in ("ffp_z", "ffp_a", "ffp_user"):
        del sys.modules[name]
    without_user = preloader(library, "ffp_z", "ffp_a")  # ffp_user is not installed then
    assert without_user.learn(seen_there) == ["ffp_z"]
    assert without_user.report.refused == {"ffp_user": "not from an installed distribution"}


def test_a_package_whose_parts_import_each_other(library: Path) -> None:
    (library / "ffp_circle").mkdir()
    (library / "ffp_circle" / "__init__.py").write_text("from ffp_circle.second import LAST\n")
    (library / "ffp_circle" / "second.py").write_text("FIRST = 1\nfrom ffp_circle.first import LAST\n")
    (library / "ffp_circle" / "first.py").write_text(
        "from ffp_circle.second import FIRST\nLAST = FIRST + 1\n"
    )
    seen_there = observed_in_a_child(library, "import ffp_circle.first")
    loader = preloader(library, "ffp_circle")
    assert loader.learn(seen_there) == ["ffp_circle"]
    assert sys.modules["ffp_circle.first"].LAST == 2
    assert loader.report.refused == {}
    assert set(loader.report.preloaded) == {"ffp_circle", "ffp_circle.first", "ffp_circle.second"}


def test_a_denied_module_that_is_not_there_denies_nothing(library: Path) -> None:
    (library / "ffp_optional.py").write_text("try:\n    import ffp_missing\nexcept ImportError:\n    pass\n")
    loader = preloader(library, "ffp_optional", deny=("ffp_missing",))
    assert loader.learn(seen(library, "ffp_optional")) == ["ffp_optional"]


def test_what_is_planned_again_counts_what_is_there(library: Path) -> None:
    """The budget is for the parent, not for each report."""
    for name in ("ffp_one", "ffp_two", "ffp_three"):
        (library / f"{name}.py").write_text("")
    loader = preloader(library, "ffp_one", "ffp_two", "ffp_three", max_bytes=2 * 4096)
    assert loader.learn(seen(library, "ffp_one")) == ["ffp_one"]
    assert loader.learn(seen(library, "ffp_two")) == ["ffp_two"]
    assert loader.learn(seen(library, "ffp_three")) == []
    assert "of max_bytes" in loader.report.refused["ffp_three"]


def test_what_something_took_out_of_sys_modules_is_not_imported_again(library: Path) -> None:
    (library / "ffp_gone.py").write_text("")
    (library / "ffp_other.py").write_text("")
    loader = preloader(library, "ffp_gone", "ffp_other")
    assert loader.learn(seen(library, "ffp_gone")) == ["ffp_gone"]
    del sys.modules["ffp_gone"]
    assert loader.learn(seen(library, "ffp_gone")) == []
    assert loader.learn(seen(library, "ffp_other")) == ["ffp_other"]


def test_distributions_of_this_interpreter() -> None:
    installed = find_installed()
    assert installed.distribution("psutil._pslinux") == "psutil"
    assert installed.distribution("_pytest.config") == "pytest"
    assert installed.distribution("json.decoder") is None
    assert installed.distribution("ffp_nobodys") is None


def test_distributions_that_share_a_package(library: Path) -> None:
    for name, part in (("ffp-one", "one"), ("ffp-two", "two")):
        (library / "ffp_space" / part).mkdir(parents=True)
        (library / "ffp_space" / part / "__init__.py").write_text("")
        info = library / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"ffp_space/{part}/__init__.py,,\n{info.name}/RECORD,,\n")
    installed = find_installed()
    assert "ffp_space" in installed.names
    assert installed.distribution("ffp_space") is None
    assert installed.distribution("ffp_space.one") == "ffp-one"
    assert installed.distribution("ffp_space.two.deeper") == "ffp-two"
    assert installed.distribution("ffp_space.three") is None
