# SPDX-License-Identifier: Apache-2.0
"""What workers import, a learning zygote shares with the next ones: of its generation, and of those that follow."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fresh import run_fresh

# Modules in the folder LIBRARY count as installed, as parts of the distribution frozen_peas.
_PRELUDE = """
import json, os, signal, sys, time
LIBRARY = {library!r}
sys.path.insert(0, LIBRARY)
from frostfork import Canary, Installed, LearningTemplate, PreloadPolicy, Template, Zygote, ZygoteError
names = frozenset(name.partition(".")[0] for name in os.listdir(LIBRARY))
installed = Installed((LIBRARY,), names, dict.fromkeys(names, "frozen-peas"))

def template(*preload, **options):
    options.setdefault("policy", PreloadPolicy(installed))
    options.setdefault("canary", Canary(seconds=5))
    return LearningTemplate(preload, **options)

def use(*modules):
    for name in modules:
        __import__(name)

def tell_loaded(fds):
    os.write(fds[0], json.dumps(sorted(name for name in sys.modules if name.startswith("ffl_"))).encode())

def ask(target, *arguments):
    reader, writer = os.pipe()
    worker = zygote.fork(target, arguments, fds=[writer])
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    assert worker.wait(30).code == 0
    return json.loads(text)

def loaded():
    return ask(tell_loaded)

def run(target, *arguments, code=0):
    assert zygote.fork(target, arguments).wait(30).code == code

def until(right):
    # Until the zygote has nothing left to do; it says so itself.
    end = time.monotonic() + 30
    while not right(report := zygote.call("report")):
        assert time.monotonic() < end, report
        time.sleep(0.02)
    return report

def hold(*modules, fds):
    use(*modules)
    os.write(fds[0], b".")
    os.read(fds[1], 1)

class Held:
    # A worker that lives on after it has imported.
    def __init__(self, *modules):
        ready, out = os.pipe()
        stop, self._go = os.pipe()
        self.worker = zygote.fork(hold, modules, fds=[out, stop])
        os.close(out), os.close(stop)
        assert os.read(ready, 1) == b"."
        os.close(ready)
    def end(self):
        os.close(self._go)
        return self.worker.wait(30).code
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    for name in "abc":
        (folder / f"ffl_{name}.py").write_text(f"def work():\n    return {name!r}\n")
    metadata = folder / "frozen_peas-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: frozen-peas\nVersion: 1.0\n")
    (metadata / "RECORD").write_text("")
    return folder


def run(library: Path, script: str) -> Any:
    return run_fresh(_PRELUDE.format(library=str(library)) + textwrap.dedent(script))


@pytest.mark.parametrize("start", ["fork"])
def test_what_one_worker_imports_the_next_shares(library: Path, start: str) -> None:
    seen = run(
        library,
        f"""
        with Zygote(template("ffl_c"), start={start!r}) as zygote:
            first = loaded()
            run(use, "ffl_a")
            until(lambda report: "ffl_a" in report.preloaded)
            report = zygote.call("report")
            second = loaded()
            run(use, "ffl_b")
            zygote.replace()
            again = zygote.call("report")
            third = loaded()
            print(json.dumps([first, second, third, report.tried, list(again.preloaded), again.tried, again.refused]))
        """,
    )
    first, second, third, tried, again, tried_again, _ = seen
    assert first == ["ffl_c"]
    assert second == ["ffl_a", "ffl_c"]
    assert third == ["ffl_a", "ffl_b", "ffl_c"], seen
    assert tried == 1
    assert sorted(again) == ["ffl_a", "ffl_b"]
    assert tried_again <= 1  # ffl_b, if the old zygote had not tried it


def test_what_passed_once_is_not_tried_again_unless_it_changed(library: Path) -> None:
    """And what failed neither. Each trial leaves a line in a file."""
    trials = library.parent / "trials"
    (library / "ffl_good.py").write_text(f"with open({str(trials)!r}, 'a') as file: file.write('good ')\n")
    (library / "ffl_bad.py").write_text(
        f"with open({str(trials)!r}, 'a') as file: file.write('bad ')\n"
        "import os, threading\n"
        "if os.environ.get('FFL_WORKER') is None: os._exit(3)\n"
    )
    seen = run(
        library,
        f"""
        trials = {str(trials)!r}
        def trial_words():
            with open(trials, "r+") as file:
                words = file.read().split()
                file.truncate(0)
                return sorted(words)
        with Zygote(template()) as zygote:
            worker = zygote.fork(use, ("ffl_good", "ffl_bad"), env={{"FFL_WORKER": "1"}})
            assert worker.wait(30).code == 0
            open(trials, "w").close()
            until(lambda report: "ffl_good" in report.preloaded and "ffl_bad" in report.refused)
            answers = [trial_words()]
            for change in (False, True):
                if change:
                    with open(LIBRARY + "/frozen_peas-1.0.dist-info/RECORD", "w") as file:
                        file.write("ffl_good.py,,\\n")
                zygote.replace()
                report = zygote.call("report")
                answers.append([trial_words(), sorted(report.preloaded), report.refused])
        print(json.dumps(answers))
        """,
    )
    first, same, changed = seen
    assert first == ["bad", "good", "good"]  # in canaries, and ffl_good in the zygote
    reason = "in the canary, ffl_bad ended the process with exit code 3 (exited)"
    assert same == [["good"], ["ffl_good"], {"ffl_bad": reason}]
    assert changed == [["bad", "good", "good"], ["ffl_good"], {"ffl_bad": reason}]


def test_live_workers_are_asked_before_a_replacement_and_count_once(library: Path) -> None:
    seen = run(
        library,
        """
        with Zygote(template()) as zygote:
            workers = [Held("ffl_a"), Held("ffl_a", "ffl_b")]
            known = [zygote.call("learn"), zygote.call("learn")]
            zygote.replace()  # which asks once more
            shared = loaded()
            codes = [worker.end() for worker in workers]
            # The old zygote's last words reach the new one.
            report = until(lambda report: report.workers >= 3)
            zygote.replace()
            report = zygote.call("report")
        print(json.dumps([known, shared, codes, report.modules, report.workers]))
        """,
    )
    assert seen == [[2, 0], ["ffl_a", "ffl_b"], [0, 0], 2, 3]


def test_a_killed_worker_and_a_killed_zygote_have_taught_what_they_could(library: Path) -> None:
    seen = run(
        library,
        """
        with Zygote(template()) as zygote:
            worker = Held("ffl_a")
            worker.worker.kill()
            assert worker.worker.wait(30).code == -signal.SIGKILL
            until(lambda report: "ffl_a" in report.preloaded)
            pid = zygote.pid
            os.kill(pid, signal.SIGKILL)
            end = time.monotonic() + 20
            while zygote.alive and time.monotonic() < end:
                time.sleep(0.01)
            shared = loaded()
            print(json.dumps([shared, zygote.pid != pid]))
        """,
    )
    assert seen == [["ffl_a"], True]


def test_a_file_remembers_from_one_start_to_the_next(library: Path, tmp_path: Path) -> None:
    script = f"""
        with Zygote(template(ledger={str(tmp_path / "ledger")!r})) as zygote:
            at_first = loaded()
            run(use, "ffl_a")
            zygote.close(10, drain=True)
        print(json.dumps(at_first))
    """
    assert run(library, script) == []
    assert run(library, script) == ["ffl_a"]


def test_the_users_own_modules_are_shared_only_where_they_are_named(library: Path, tmp_path: Path) -> None:
    (tmp_path / "ffl_mine.py").write_text("import ffl_b\n")
    script = f"""
        sys.path.insert(0, {str(tmp_path)!r})
        with Zygote(template(PRELOAD)) as zygote:
            run(use, "ffl_mine", "ffl_a")
            report = until(lambda report: "ffl_a" in report.preloaded)
            print(json.dumps([loaded(), report.refused.get("ffl_mine")]))
    """
    refused = run(library, script.replace("PRELOAD", ""))
    assert refused == [["ffl_a", "ffl_b"], "not from an installed distribution"]
    assert run(library, script.replace("PRELOAD", "'ffl_mine'")) == [["ffl_a", "ffl_b", "ffl_mine"], None]


def test_a_preload_that_is_asked_for_and_fails_fails_the_start(library: Path) -> None:
    said = run(
        library,
        """
        try:
            Zygote(template("ffl_a", "ffl_none")).start()
        except ZygoteError as error:
            print(json.dumps(str(error)))
        """,
    )
    assert "No module named 'ffl_none'" in said


@pytest.mark.parametrize("function", ["rehearsal", "'__main__:rehearsal'"])
def test_what_a_rehearsal_builds_is_shared(library: Path, function: str) -> None:
    script = """
        import ffl_a
        def rehearsal():
            ffl_a.built = os.getpid()
        def tell(fds):
            os.write(fds[0], json.dumps([ffl_a.built, os.getppid()]).encode())
        with Zygote(template(rehearse=FUNCTION)) as zygote:
            first = ask(tell)
            zygote.replace()
            print(json.dumps([first, ask(tell)]))
        """
    (one, first), (two, second) = run(library, script.replace("FUNCTION", function))
    assert one == first
    assert two == second != one


def test_a_rehearsal_that_fails_fails_the_start_and_keeps_the_old_zygote(library: Path) -> None:
    said = run(
        library,
        """
        reader, writer = os.pipe()
        def rehearsal():
            if os.read(reader, 1) == b"x":
                raise RuntimeError("forgot the text")
        os.write(writer, b".x")
        with Zygote(template(rehearse=rehearsal), keep_fds=[reader]) as zygote:
            try:
                zygote.replace()
            except ZygoteError as error:
                print(json.dumps([str(error), zygote.generation]))
        """,
    )
    assert "forgot the text" in said[0]
    assert said[1] == 1


def test_code_that_workers_run_is_laid_together_in_the_next_generation(library: Path) -> None:
    seen = run(
        library,
        """
        def work():
            import ffl_a, ffl_b
            return (ffl_a.work() + ffl_b.work() == "ab") - 1
        with Zygote(template()) as zygote:
            run(work)
            until(lambda report: {"ffl_a", "ffl_b"} <= report.preloaded.keys())
            before = zygote.call("report").functions
            run(work)  # with nothing left to import
            until(lambda report: report.functions)
            zygote.replace()
            last = zygote.call("report").warmups[-1].steps["compact_code"]
            print(json.dumps([before, last.status, last.count]))
        """,
    )
    before, status, moved = seen
    assert before == 0
    assert status == "done"
    assert moved >= 2


def test_observing_is_bounded_and_leaves_no_descriptor(library: Path) -> None:
    seen = run(
        library,
        """
        class Counting(LearningTemplate):
            def open_files(self):
                return len(os.listdir("/proc/self/fd"))
        def tell_open(fds):
            links = []
            for fd in os.listdir("/proc/self/fd"):
                try:
                    links.append(os.readlink(f"/proc/self/fd/{fd}"))
                except FileNotFoundError:  # the one that lists
                    pass
            os.write(fds[0], json.dumps([sum("journal" in link for link in links),
                                         sum("heritage" in link for link in links)]).encode())
        with Zygote(Counting(policy=PreloadPolicy(installed), observed=3)) as zygote:
            before = zygote.call("open_files")
            workers = [Held("ffl_a") for _ in range(2)]
            in_worker = ask(tell_open)
            workers += [Held("ffl_a") for _ in range(4)]
            observed = zygote.call("report").observed
            ends = [worker.end() for worker in workers]
            until(lambda report: report.observed == 0 and not report.trying)
            print(json.dumps([in_worker, observed, ends, zygote.call("open_files") - before]))
        """,
    )
    assert seen == [[1, 0], 3, [0] * 6, 0]


def test_a_pool_learns_from_its_workers(library: Path) -> None:
    """Workers of a pool live long: the first generation imports, the second has it all from its zygote."""
    seen = run(
        library,
        """
        from frostfork import ForkPool
        def work(number):
            before = sorted(name for name in sys.modules if name.startswith("ffl_"))
            import ffl_a, ffl_b
            return before, os.getpid()
        with ForkPool(2, template=template()) as pool:
            first = list(pool.map(work, range(4)))
            old = {worker.pid for worker in pool.stats().workers}
            pool.refork()
            end = time.monotonic() + 60
            while old & {worker.pid for worker in pool.stats().workers}:
                assert time.monotonic() < end
                time.sleep(0.05)
            last = list(pool.map(work, range(4)))
        print(json.dumps([first[0][0], [before for before, _ in last], bool(old & {pid for _, pid in last})]))
        """,
    )
    assert seen == [[], [["ffl_a", "ffl_b"]] * 4, False]


@pytest.mark.slow
def test_a_zygote_that_hangs_is_replaced_all_the_same(library: Path) -> None:
    seen = run(
        library,
        """
        class Hanging(LearningTemplate):
            def succeeded(self):
                time.sleep(300)
        with Zygote(Hanging(policy=PreloadPolicy(installed))) as zygote:
            before = time.monotonic()
            generation = zygote.replace()
            print(json.dumps([generation, time.monotonic() - before < 60, loaded()]))
        """,
    )
    assert seen == [2, True, []]


def test_a_zygote_that_was_executed_learns_as_well(library: Path) -> None:
    seen = run(
        library,
        """
        with Zygote(template("ffl_c"), start="exec") as zygote:
            assert zygote.fork("importlib:import_module", ("ffl_a",)).wait(30).code == 0
            until(lambda report: "ffl_a" in report.preloaded)
            zygote.replace()
            report = zygote.call("report")
            print(json.dumps([report.tried, sorted(report.preloaded)]))
        """,
    )
    assert seen == [0, ["ffl_a"]]


def test_a_canary_ends_with_its_zygote(library: Path) -> None:
    """Also one that hangs in the middle of an import."""
    (library / "ffl_slow.py").write_text(
        "import os, time\n"
        "if os.environ.get('FFL_WORKER') is None:\n"
        f"    with open({str(library.parent / 'pid')!r}, 'w') as file: file.write(str(os.getpid()))\n"
        "    time.sleep(100)\n"
    )
    gone = run(
        library,
        f"""
        import psutil
        path = {str(library.parent / "pid")!r}
        with Zygote(template(canary=Canary(seconds=90))) as zygote:
            worker = zygote.fork(use, ("ffl_slow",), env={{"FFL_WORKER": "1"}})
            assert worker.wait(30).code == 0
            end = time.monotonic() + 30
            while not (os.path.exists(path) and open(path).read()):
                assert time.monotonic() < end
                time.sleep(0.01)
            canary = psutil.Process(int(open(path).read()))
        try:
            canary.wait(10)
        except psutil.TimeoutExpired:
            canary.kill()
            print("false")
        else:
            print("true")
        """,
    )
    assert gone


def test_workers_that_could_not_be_forked_are_not_observed(library: Path) -> None:
    seen = run(
        library,
        """
        import resource

        class Limited(LearningTemplate):
            def limit(self, most):
                if os.getuid() == 0:
                    os.setgroups([])
                    os.setgid(65534)
                    os.setuid(65534)  # the limit does not hold for root
                resource.setrlimit(resource.RLIMIT_NPROC, (most, resource.getrlimit(resource.RLIMIT_NPROC)[1]))

            def look(self):
                return len(self._observed), len(os.listdir("/proc/self/fd"))

        with Zygote(Limited(canary=None, steps=())) as zygote:
            before = zygote.call("look")
            zygote.call("limit", 0)
            refused = 0
            for _ in range(5):
                try:
                    zygote.fork("os:getpid")
                except OSError:
                    refused += 1
            print(json.dumps([refused, zygote.call("look") == before]))
        """,
    )
    assert seen == [5, True]
