# SPDX-License-Identifier: Apache-2.0
"""Ten thousand tasks while workers, zygote and root are killed, and descriptors, files and forks run out; storm.py."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SECONDS = 100.0


@pytest.mark.parametrize(("start", "tasks"), [("fork", 10_000), ("exec", 3_000)])
def test_every_task_ends_right_or_with_a_reason_and_nothing_is_left(start: str, tasks: int) -> None:
    # Another storm each time; what it prints begins with its seed.
    storm = subprocess.run(
        [sys.executable, "-m", "tests.chaos.storm", "--tasks", str(tasks), "--start", start],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=os.getcwd(),
    )
    assert storm.returncode == 0, storm.stdout + storm.stderr
    if tasks == 10_000:
        for calamity in (
            "kill_worker",
            "stop_worker",
            "kill_zygote",
            "kill_root",
            "take_descriptors",
            "take_files",
        ):
            assert f"calamity: {calamity}" in storm.stdout, storm.stdout


FULL_DISK = """
import os, sys, tempfile
from concurrent.futures import wait
from frostfork import ForkPool, WorkerDied
from tests.integration import pool_work as work

here = os.environ["TMPDIR"]
filler = os.open(os.path.join(here, "filler"), os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(filler, bytes(4096))
except OSError as error:
    print(error.strerror)
err = os.open(os.path.join(here, "stderr"), os.O_WRONLY | os.O_CREAT)
os.dup2(err, 2)
with ForkPool(2) as pool:
    assert pool.submit(len, bytes(10_000_000)).result(30) == 10_000_000  # a memfd is no file on a disk
    assert len(pool.submit(bytes, 10_000_000).result(30)) == 10_000_000
    error = pool.submit(work.cry_and_die, "famous last words").exception(30)
    assert isinstance(error, WorkerDied) and error.stderr_tail == "famous last words", repr(error)
    error = pool.submit(work.write_file, os.path.join(here, "more")).exception(30)
    assert isinstance(error, OSError) and error.errno == 28, repr(error)
    assert [future.result(30) for future in [pool.submit(work.double, each) for each in range(500)]][-1] == 998
assert os.fstat(2).st_size == 0
print(sorted(os.listdir(here)))
"""


def test_a_full_disk_costs_no_task(tmp_path: os.PathLike[str]) -> None:
    """Nothing of a pool is a file: large data is in memfds, and the end of standard error in the owner's memory."""
    shell = f'mount -t tmpfs -o size=64k none "{os.fspath(tmp_path)}" || exit 99; exec "$0" -c "$1"'
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", shell, sys.executable, FULL_DISK],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "TMPDIR": os.fspath(tmp_path), "LC_ALL": "C"},
    )
    if ran.returncode in (1, 99) and ("unshare" in ran.stderr or "mount" in ran.stderr):
        pytest.skip(f"no small disk can be had here: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # An empty file was made for "more", and for standard error.
    assert ran.stdout.splitlines() == ["No space left on device", "['filler', 'more', 'stderr']"]
