# SPDX-License-Identifier: Apache-2.0
"""What an owner tells its root once, and what root hands on to each zygote."""

from __future__ import annotations

import pickle
import sys
from typing import Any, NamedTuple

from frostfork._zygote.template import Template


class Options(NamedTuple):
    """Zygote's parameters."""

    template: Template | None
    start: str
    kill: bool
    keep_fds: tuple[int, ...]
    name: str
    ready_timeout: float
    import_main: bool


class Setup(NamedTuple):
    """The words of Zygote's parameters, and where the descriptors are in the root.

    lifeline: the reading end of its pipe. kill: whether all end at once when the owner does.
    template: the object itself where it is inherited, its pickle where root was started by exec.
    preparation: multiprocessing's for a spawned process, pickled; None where root was forked.
    """

    name: str
    kill: bool
    lifeline: int
    keep_fds: tuple[int, ...]
    template: Template | bytes | None
    preparation: bytes | None

    def make_template(self) -> Template:
        """In a zygote, which may import: each has a copy of its own."""
        if self.preparation is not None:
            from multiprocessing import process, spawn

            # Says to whoever starts a process that a main module is being imported which should have a guard.
            me: Any = process.current_process()
            me._inheriting = True
            try:
                spawn.prepare(pickle.loads(self.preparation))  # noqa: S301 - from the owner
            finally:
                del me._inheriting
        if isinstance(self.template, bytes):
            made = pickle.loads(self.template)  # noqa: S301 - from the owner
            assert isinstance(made, Template)
            return made
        return self.template or Template()


def preparation(import_main: bool) -> dict[str, Any]:
    """What multiprocessing.spawn.prepare needs: where and what the owner is.

    multiprocessing's own get_preparation_data would also settle on a start method, which a program may yet want to set.
    """
    import os
    from multiprocessing import process

    current = process.current_process()
    folder = getattr(process, "ORIGINAL_DIR", None)
    data: dict[str, Any] = {
        "name": current.name,
        "authkey": bytes(current.authkey),
        "sys_path": [folder if path == "" and folder is not None else path for path in sys.path],
        "sys_argv": sys.argv,
        "orig_dir": folder,
        "dir": os.getcwd(),
    }
    main = sys.modules.get("__main__")
    if import_main and main is not None:
        name = getattr(getattr(main, "__spec__", None), "name", None)
        path = getattr(main, "__file__", None)
        if name is not None:
            data["init_main_from_name"] = name
        elif path is not None:
            if not os.path.isabs(path) and folder is not None:
                path = os.path.join(folder, path)
            data["init_main_from_path"] = os.path.normpath(path)
    return data
