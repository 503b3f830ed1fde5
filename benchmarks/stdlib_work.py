# SPDX-License-Identifier: Apache-2.0
"""Work that needs the standard library alone, so that every Python can do it: see pythons.py."""

from __future__ import annotations

import asyncio
import dataclasses
import email.message
import email.policy
import gc
import html.parser
import http.server  # noqa: F401 - held by the parent, not used by the child, as most of what a program imports
import json
import logging.config
import re
import sqlite3
import unittest.mock
import xml.etree.ElementTree as ElementTree
from concurrent import futures  # noqa: F401 - as above


def work() -> None:
    _json()
    _mails()
    _tables()
    _classes()
    _mocks()
    asyncio.run(_tasks())
    for _ in range(3):
        gc.collect()


def _json() -> None:
    rows = [{"number": i, "text": str(i), "parts": [i, i / 2, None]} for i in range(500)]
    assert json.loads(json.dumps(rows, indent=1, sort_keys=True)) == rows
    found = re.findall(r'"text": "(\d+)"', json.dumps(rows))
    assert len(found) == 500


def _mails() -> None:
    for i in range(20):
        mail = email.message.EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = f"{i}@example.org", "all@example.org", f"Number {i} of 20"
        mail.set_content("A line.\n" * 20)
        mail.add_alternative("<p>A line.</p>" * 20, subtype="html")
        read = email.message_from_bytes(bytes(mail), policy=email.policy.default)
        assert read["subject"] == mail["subject"]
    parser = html.parser.HTMLParser()
    parser.feed("<p>A line.</p>" * 200)
    parser.close()
    tree = ElementTree.fromstring("<all>" + "<one at='1'>text</one>" * 200 + "</all>")
    assert len(tree.findall("one")) == 200


def _tables() -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table numbers (number integer primary key, square integer)")
        connection.executemany("insert into numbers values (?, ?)", ((i, i * i) for i in range(1000)))
        assert connection.execute("select count(*), max(square) from numbers").fetchone() == (1000, 998001)
    connection.close()


def _classes() -> None:
    made = [
        dataclasses.make_dataclass(f"Row{i}", [("number", int), ("text", str, "")], order=True)
        for i in range(5)
    ]
    rows = sorted(kind(i % 10) for kind in made[:1] for i in range(100))
    assert dataclasses.asdict(rows[0]) == {"number": 0, "text": ""}
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})


def _mocks() -> None:
    mock = unittest.mock.MagicMock()
    with unittest.mock.patch.object(json, "dumps", mock):
        for i in range(50):
            json.dumps(i)
    assert mock.call_count == 50


async def _tasks() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=4)

    async def fill() -> None:
        for i in range(200):
            await queue.put(i)

    async def drain() -> int:
        return sum([await queue.get() for _ in range(200)])

    _, total = await asyncio.gather(fill(), drain())
    assert total == 19900
