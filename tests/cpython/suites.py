# SPDX-License-Identifier: Apache-2.0
"""Makes importable modules of the tests in test._test_multiprocessing, the same on each Python.

CPython's own package for each start method differs from version to version, and some installations lack it. Started
processes import the module that their test is in, so it has to be a file.
"""

from __future__ import annotations

from pathlib import Path

_SUITE = '''\
"""Tests with the start method {method}: of {kind}."""

from test._test_multiprocessing import install_tests_in_module_dict

install_tests_in_module_dict(globals(), {method!r})


def _kind(name):
    for kind in ("processes", "threads", "manager"):
        if name.startswith("With" + kind.capitalize()):
            return kind
    return "misc"


for _name in [name for name, thing in globals().items() if isinstance(thing, type)]:
    if _kind(_name) != {kind!r}:
        del globals()[_name]
'''


def write_suites(folder: Path) -> None:
    """mp_METHOD_KIND.py for each kind of tests and both start methods that ours stands for."""
    folder.mkdir(exist_ok=True)
    for method in ("fork", "forkserver"):
        for kind in ("processes", "manager", "misc"):
            Path(folder, f"mp_{method}_{kind}.py").write_text(_SUITE.format(method=method, kind=kind))
