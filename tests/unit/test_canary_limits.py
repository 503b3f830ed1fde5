# SPDX-License-Identifier: Apache-2.0
"""What a canary is asked for is checked where it is asked, and forks nothing."""

from __future__ import annotations

import sys

import pytest

from frostfork import Canary, ConfigurationError


@pytest.mark.parametrize("name", ["seconds", "total_seconds", "memory", "processes", "file_bytes"])
@pytest.mark.parametrize("value", [float("nan"), "x", -5, None, True])
def test_limits_that_make_no_sense_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is {value!r}; allowed are"):
        Canary(**{name: value})


@pytest.mark.parametrize("name", ["memory", "file_bytes"])
def test_the_kernel_takes_the_limits(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is .* to 1,125,899,906,842,624$"):
        Canary(**{name: 10**30})


@pytest.mark.parametrize("pairs", ["x", ["ab"], [("a",)], [("a", 5)], 5])
def test_unsafe_libraries_are_pairs(pairs: object) -> None:
    with pytest.raises(TypeError):
        Canary(unsafe_libraries=pairs)


def test_one_string_is_one_name() -> None:
    loaded = "collections.abc"
    assert loaded in sys.modules
    with Canary().start(loaded) as trial:  # nothing to try: no letter is a module's name
        assert trial.names == ()
    for wrong in (None, 5, [5], b"wave"):
        with pytest.raises(TypeError, match="names must be strings"):
            Canary().start(wrong)
        with pytest.raises(TypeError, match="deny must be strings"):
            Canary().start([], deny=wrong)
