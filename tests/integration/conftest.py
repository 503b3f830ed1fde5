# SPDX-License-Identifier: Apache-2.0
"""What several modules of these tests begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from frostfork import Zygote
from tests.integration import zygote_work as work


@pytest.fixture(params=["fork", "exec"])
def zygote(request: pytest.FixtureRequest) -> Iterator[Zygote]:
    with Zygote(work.Recorder(), start=request.param) as started:
        yield started
