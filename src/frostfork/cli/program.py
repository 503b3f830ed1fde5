# SPDX-License-Identifier: Apache-2.0
"""What a command line would run, as far as it is a Python program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

from frostfork.errors import ConfigurationError

_INTERPRETER = re.compile(r"python(\d+(\.\d+)?t?)?$")


class Program(NamedTuple):
    """A Python program: which interpreter, with which options, runs what. kind: "script", "-m" or "-c"."""

    interpreter: str
    options: list[str]
    kind: str
    target: str
    arguments: list[str]


def find_program(command: list[str]) -> Program:
    """Resolve `script.py ...`, `-m module ...`, `-c code ...`, `python ...` or a console script on PATH.

    Raises ConfigurationError, in one sentence, for what is none of these.
    """
    first, *rest = command
    if first in ("-m", "-c"):
        return _from_options(sys.executable, command)
    if first.startswith("-"):
        raise ConfigurationError(f"{first} is no option of frostfork blame: put -- before the command.")
    if _INTERPRETER.match(os.path.basename(first)):
        path = shutil.which(first)
        if path is None:
            raise ConfigurationError(f"There is no {first} on PATH.")
        return _from_options(_usable(path), rest)
    if first.endswith(".py") or (os.path.isdir(first) and os.path.exists(os.path.join(first, "__main__.py"))):
        if not os.path.exists(first):
            raise ConfigurationError(f"There is no file {first}.")
        return Program(sys.executable, [], "script", first, rest)
    path = shutil.which(first)
    if path is None:
        raise ConfigurationError(f"There is no {first} on PATH, and it is no Python file.")
    return Program(_interpreter_of(path), [], "script", path, rest)


def _from_options(interpreter: str, words: list[str]) -> Program:
    """Split the interpreter's own options from what it shall run."""
    options: list[str] = []
    while words:
        word, *words = words
        if word[:2] in ("-m", "-c"):
            if word[2:]:
                words = [word[2:], *words]
            if not words:
                raise ConfigurationError(f"{word[:2]} needs an argument.")
            return Program(interpreter, options, word[:2], words[0], words[1:])
        if word == "-" or not word.startswith("-"):
            if word == "-" or not os.path.exists(word):
                raise ConfigurationError(f"There is no file {word}.")
            return Program(interpreter, options, "script", word, words)
        options.append(word)
        if word in ("-X", "-W", "--check-hash-based-pycs") and words:
            value, *words = words
            options.append(value)
    raise ConfigurationError(
        "An interpreter without a program has no children to judge: name a script, -m or -c."
    )


def _interpreter_of(path: str) -> str:
    """The interpreter of a script that the first line names, as pip, uv and distributions write it."""
    try:
        with open(path, "rb") as file:
            head = [line.decode("utf-8", "replace").strip() for line in file.read(1024).split(b"\n")[:2]]
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    # A path too long for the kernel is written as #!/bin/sh and, on the second line, '''exec' PATH "$0" "$@".
    words = head[0].removeprefix("#!").split() if head[0].startswith("#!") else []
    if words and words[0] == "/bin/sh" and len(head) > 1 and head[1].startswith("'''exec'"):
        words = [word.strip("'\"") for word in head[1].split()[1:2]]
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-")]
    if not words or not _INTERPRETER.match(os.path.basename(words[0])):
        raise ConfigurationError(f"{path} is not a Python program: only Python's own forks can be judged.")
    interpreter = shutil.which(words[0])
    if interpreter is None:
        raise ConfigurationError(f"{path} names the interpreter {words[0]}, which is not there.")
    return _usable(interpreter)


def _usable(interpreter: str) -> str:
    """Another interpreter needs a frostfork of its own."""
    if os.path.abspath(interpreter) == os.path.abspath(sys.executable):
        return interpreter
    check = [interpreter, "-c", "import frostfork.judged"]
    try:
        done = subprocess.run(check, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise ConfigurationError(f"{interpreter} cannot be run: {error.strerror}.") from error
    if done.returncode == 0:
        return interpreter
    raise ConfigurationError(f"{interpreter} has no frostfork of this version: install it there.")
