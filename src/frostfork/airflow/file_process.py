# SPDX-License-Identifier: Apache-2.0
"""One parsing process, as the manager holds it."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from airflow.dag_processing.processor import DagFileProcessorProcess, _parse_file_entrypoint

from frostfork.airflow.observed import run_observed
from frostfork.airflow.zygote_child import ZygoteChild
from frostfork.errors import ZygoteError
from frostfork.journal import Journal

if TYPE_CHECKING:
    from frostfork.airflow.learning import DagFileLearner
    from frostfork.airflow.zygote_parent import ZygoteParent

log = logging.getLogger("frostfork.airflow")


def _reseed() -> None:
    """Seed anew: numpy draws a seed once, when imported; the children of one parent would draw the same numbers.

    Before each fork, since for the child it would be the first use of numpy: 0.5 ms and 40 copied pages.
    """
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed(memoryview(os.urandom(32)).cast("I").tolist())  # a tenth of the time of seed()


@attrs.define(kw_only=True)
class ObservedFileProcess(DagFileProcessorProcess, ZygoteChild):
    """A child that parses one file and writes down what it imports.

    parent: the zygote that forks it, if there is one; on_loss is called when there is none any more, and is to set
    learner, which is for children that this process forks itself.
    """

    learner: ClassVar[DagFileLearner | None] = None
    parent: ClassVar[ZygoteParent | None] = None
    on_loss: ClassVar[Callable[[ZygoteError], None] | None] = None

    journal: Journal | None = None

    @classmethod
    def start(  # type: ignore[override]  # as in Airflow's classes
        cls, *, target: Callable[[], None] = _parse_file_entrypoint, bundle_path: Any, **kwargs: Any
    ) -> ObservedFileProcess:
        start = functools.partial(super().start, bundle_path=bundle_path, **kwargs)
        if cls.parent is not None:
            try:
                # Callbacks may tell people of failures: once at the most.
                wait = bool(kwargs.get("callbacks"))
                return start(target=target, parent=cls.parent, folder=os.fspath(bundle_path), wait=wait)
            except ZygoteError as error:
                if cls.on_loss is None:
                    raise
                cls.on_loss(error)
        if cls.learner is None:
            return start(target=target)
        cls.learner.add_folder(os.fspath(bundle_path))
        cls.learner.before_fork(kwargs["dag_file_rel_path"])
        with contextlib.suppress(Exception):
            _reseed()
        try:
            journal = Journal()
        except OSError:
            log.exception("frostfork cannot learn from this parse")
            return start(target=target)
        code = cls.learner.wants_code(kwargs["dag_file_rel_path"])
        watching, judging = cls.learner.watching, cls.learner.judging
        observed = functools.partial(run_observed, target, journal, len(sys.modules), watching, judging)
        try:
            with watching.next_fork(code), judging.next_fork():
                process: ObservedFileProcess = start(target=observed)
        except BaseException:
            journal.close()
            raise
        process.journal = journal
        return process

    def _on_child_started(self, *arguments: Any, **options: Any) -> None:
        # What it is to parse. Where the zygote ended before it forked, nobody is there: settle() will tell.
        gone = () if self.is_settled else (BrokenPipeError, ConnectionResetError)
        with contextlib.suppress(*gone):
            super()._on_child_started(*arguments, **options)

    def close(self) -> None:
        journal, self.journal = self.journal, None
        with contextlib.closing(journal) if journal is not None else contextlib.nullcontext():
            super().close()
            if journal is not None and self.learner is not None:
                self.learner.learn(journal, self.dag_file_rel_path)
