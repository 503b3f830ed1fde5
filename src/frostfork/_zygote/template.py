# SPDX-License-Identifier: Apache-2.0
"""What a zygote does beside forking: the hooks of whoever decides what it holds."""

from __future__ import annotations

from collections.abc import Collection


class Template:
    """What lives in a zygote. Subclass it; each zygote gets a copy of its own of the one given to Zygote.

    With start="fork" the copy is inherited, with start="exec" it is pickled. The hooks run in the zygote's only thread,
    and while one runs no worker is forked; ends of workers are reported meanwhile all the same. Public methods of a
    subclass can be called from the owner with Zygote.call.

    keep_fds: descriptors of the owner's that the template needs in each zygote, under the same numbers. Workers have
    them, too.
    """

    keep_fds: Collection[int] = ()
    watches_birth = False  # of the next worker
    writes_nothing = False  # before a fork, to sys.stdout and sys.stderr

    def begin(self) -> None:
        """Once in each zygote, before it is ready: preload, warm up. An exception fails the start or replacement."""

    def before_fork(self, name: str) -> None:
        """Before a worker is forked. An exception is shown on stderr, and the fork goes on."""

    def not_forked(self, name: str) -> None:
        """After before_fork, in the place of ended: the worker could not be forked."""

    def descriptors(self, name: str) -> Collection[int]:
        """Descriptors of the zygote that the worker about to be forked inherits, beside its own."""
        return ()

    def born(self) -> None:
        """First thing in the worker if watches_birth: it still is what the zygote was, and all signals wait."""

    def in_worker(self, name: str) -> None:
        """In the worker, before its target. An exception ends the worker."""

    def ended(self, name: str, pid: int, code: int | None) -> None:
        """After a worker's end was reported. May take long: forks come first.

        code: as subprocess.returncode; None where other code in the zygote waited for the worker.
        """

    def succeeded(self) -> None:
        """Before the zygote of the next generation begins: hand over what that is to know. It waits 5 s for this."""

    def rehearse(self) -> None:
        """Once, when the zygote is ready: what each worker does in the beginning, as far as it leaves no trace."""

    def parts(self) -> tuple[object, ...]:
        """Itself, and what it has until it ends and each worker looks at: no worker will write their counts."""
        return (self,)

    def idle(self) -> float | None:
        """When nothing is to do. The seconds until it wants to be called again, if nothing happens meanwhile.

        None: when something has happened, and not before.
        """
        return None
