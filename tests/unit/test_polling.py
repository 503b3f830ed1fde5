# SPDX-License-Identifier: Apache-2.0
"""When a question is due."""

from __future__ import annotations

import pytest

from frostfork.airflow import polling


def test_due_at_once_then_after_the_interval_or_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(polling.time, "monotonic", lambda: now)
    poll = polling.Poll(0.25)
    assert poll.is_due()
    assert not poll.is_due()
    now += 0.24
    assert not poll.is_due()
    now += 0.02
    assert poll.is_due()
    assert not poll.is_due()
    poll.again()
    assert poll.is_due()
