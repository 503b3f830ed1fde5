# SPDX-License-Identifier: Apache-2.0
"""Airflow's cache of Variables and Connections ([secrets] use_cache), for children that do not inherit it.

The manager keeps it in a process of multiprocessing's, and its own children have the proxy from the fork. A zygote is
older than that process, so its workers are told where the cache is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.sdk.execution_time.cache import SecretCache

if TYPE_CHECKING:
    from datetime import timedelta


class CacheAddress(NamedTuple):
    """Where the cache is, and what opens it."""

    token: Any
    authkey: bytes
    ttl: timedelta


def cache_address() -> CacheAddress | None:
    """In the manager: of its cache; None if it has none."""
    cache: Any = SecretCache._cache
    if cache is None:
        return None
    return CacheAddress(cache._token, bytes(cache._authkey), SecretCache._ttl)


def use_cache(address: CacheAddress) -> None:
    """In a child: use the manager's cache. It connects at the first use, as a proxy from the fork does."""
    from multiprocessing.managers import DictProxy

    SecretCache._cache = DictProxy(address.token, "pickle", authkey=address.authkey, incref=False)
    SecretCache._ttl = address.ttl
