# SPDX-License-Identifier: Apache-2.0
"""Scripts in a process of their own, for what cannot be taken back: their result comes back as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


def run_fresh(script: str, *, cwd: Path | None = None, env: dict[str, str] | None = None) -> Any:
    """Run the script in a fresh interpreter; what it prints in its last line, read as JSON. It sees `tests`."""
    preamble = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", preamble + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=env,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout.splitlines()[-1])
