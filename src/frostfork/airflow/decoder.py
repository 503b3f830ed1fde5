# SPDX-License-Identifier: Apache-2.0
"""The message decoders that every parsing child builds again, built once in the parent.

Airflow's child entry makes a pydantic TypeAdapter for the messages it may receive, and its channel another for errors:
each some 4 ms and 700 page faults, for objects that are the same in all children. Both modules ask for TypeAdapter by
name, so the name is given this subclass there. It hands out the validator that the parent has prepared for that type,
and builds any other as pydantic does.
"""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


class ReadyTypeAdapter(TypeAdapter[T]):
    """A TypeAdapter that is made of a prepared one, where there is one for the type."""

    _prepared: ClassVar[dict[int, tuple[Any, dict[str, Any]]]] = {}

    @classmethod
    def prepare(cls, type_: Any) -> None:
        """Build the adapter for a type now; call it in the parent."""
        # By identity, with the type kept alive: unions of annotated models compare slowly, and not all can be hashed.
        cls._prepared[id(type_)] = (type_, vars(TypeAdapter(type_)))

    def __init__(self, type: Any, **options: Any) -> None:  # noqa: A002 - pydantic's name
        known = self._prepared.get(id(type))
        if known is not None and not options:
            self.__dict__.update(known[1])
        else:
            super().__init__(type, _parent_depth=options.pop("_parent_depth", 2) + 1, **options)


def warm_channel(comms: Any, processor: Any) -> None:
    """Fill the caches from which a child builds its channel: msgspec's for the frame, typing's for the subscripts.

    comms, processor: the Airflow modules. Without it each child takes 0.3 ms for the same.
    """
    with contextlib.suppress(Exception):  # names of Airflow's that another release may not have
        comms.msgspec.msgpack.Decoder(comms._ResponseFrame)
        _ = comms.CommsDecoder[processor.ToDagProcessor, processor.ToManager]
