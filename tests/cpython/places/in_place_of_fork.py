# SPDX-License-Identifier: Apache-2.0
"""Our context, as it starts processes by fork, is what "fork" means."""

from __future__ import annotations

from multiprocessing import context

from frostfork.context import get_context

_stock = context._concrete_contexts["fork"]
context._concrete_contexts["fork"] = get_context("fork")
if context._default_context._default_context is _stock:  # up to 3.13
    context._default_context._default_context = get_context("fork")
