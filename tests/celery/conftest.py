# SPDX-License-Identifier: Apache-2.0
"""A redis-server of the test's own, and the Airflow homes of tests/airflow."""

from __future__ import annotations

import importlib.util
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Test folders are no packages (pytest imports them one by one), so the neighbour's fixtures come by their path.
_spec = importlib.util.spec_from_file_location(
    "frostfork_airflow_fixtures", Path(__file__).parents[1] / "airflow" / "conftest.py"
)
assert _spec is not None and _spec.loader is not None
_fixtures = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
airflow_home = _fixtures.airflow_home
migrated_home = _fixtures.migrated_home


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, empty server that ends with the test."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed, and this test starts one of its own.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "redis.log"
    server = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        log.write_bytes(_read_until(server, b"Ready to accept connections", 20))
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)
        assert server.stdout is not None
        server.stdout.close()


def _read_until(server: subprocess.Popen[bytes], wanted: bytes, seconds: float) -> bytes:
    assert server.stdout is not None
    deadline = time.monotonic() + seconds
    text = b""
    while wanted not in text:
        left = deadline - time.monotonic()
        ready, _, _ = select.select([server.stdout], [], [], max(0, left))
        chunk = server.stdout.raw.read(4096) if ready else b""
        assert chunk, f"redis-server did not say that it is ready: {text.decode(errors='replace')}"
        text += chunk
    return text
