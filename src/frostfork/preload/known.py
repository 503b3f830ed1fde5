# SPDX-License-Identifier: Apache-2.0
"""What is known of libraries and forks: data, each entry with its reason and its source.

Only what an import does belongs here. Much more is unsafe once it was used before a fork: a gRPC channel, a CUDA tensor, a
Kafka producer, a Mongo client. A parent that imports such a library and does not use it is fine; docs/preload.md lists
them.
"""

from __future__ import annotations

from typing import NamedTuple


class Unsafe(NamedTuple):
    """A module, or a shared library by the name of its file, that must not be loaded in a process that forks."""

    pattern: str
    reason: str
    source: str


class Harmless(NamedTuple):
    """An effect of an import, of one of verdict.KINDS, that the canary sees and that does not matter."""

    pattern: str
    kind: str
    reason: str
    source: str


_CUDA = "it opens a CUDA context, which no forked child can use"
_JULIA = "it starts Julia in the process, whose threads and signal handlers do not survive a fork"
_GEVENT = "it replaces functions of the standard library by gevent's, for every child"

UNSAFE: tuple[Unsafe, ...] = (
    Unsafe("cudf", _CUDA, "https://github.com/NVIDIA/cudf/issues/4827"),
    Unsafe("dask_cudf", _CUDA, "https://github.com/rapidsai/dask-cuda/issues/867"),
    Unsafe("ddtrace.auto", "it instruments libraries in every child, whether or not that child asked for it",
           "https://github.com/DataDog/dd-trace-py/blob/main/ddtrace/auto.py"),
    Unsafe("ddtrace.bootstrap.sitecustomize", "it instruments libraries in every child, whether or not that child asked",
           "https://github.com/DataDog/dd-trace-py/blob/main/ddtrace/auto.py"),
    Unsafe("grequests", _GEVENT, "https://github.com/spyoungtech/grequests/issues/150"),
    Unsafe("jnius", "it starts a Java virtual machine, which hangs in forked children",
           "https://github.com/kivy/pyjnius/issues/640"),
    Unsafe("julia.Main", _JULIA, "https://github.com/JuliaPy/pyjulia/issues/448"),
    Unsafe("juliacall", _JULIA, "https://github.com/JuliaPy/PythonCall.jl/issues/455"),
    Unsafe("locust", _GEVENT, "https://github.com/locustio/locust/issues/2250"),
    Unsafe("mpi4py.MPI", "it initializes MPI, which takes the process for one of its own",
           "https://mpi4py.readthedocs.io/en/stable/mpi4py.html#mpi4py.mpi4py.rc.initialize"),
    Unsafe("oct2py", "it starts an Octave process, which all children would talk to through one pair of pipes",
           "https://github.com/blink1073/oct2py/blob/main/oct2py/__init__.py"),
    Unsafe("paddle", "it sets signal handlers in C++, for every child",
           "https://www.paddlepaddle.org.cn/documentation/docs/en/api/paddle/disable_signal_handler_en.html"),
    Unsafe("pyautogui", "it connects to the X server, and all children would share the connection",
           "https://github.com/asweigart/pyautogui/blob/master/pyautogui/_pyautogui_x11.py"),
    Unsafe("pycuda.autoinit", _CUDA, "https://github.com/inducer/pycuda/blob/main/pycuda/autoinit.py"),
    Unsafe("pycuda.autoprimaryctx", _CUDA, "https://github.com/inducer/pycuda/blob/main/pycuda/autoprimaryctx.py"),
    Unsafe("rpy2.robjects", "it starts R in the process and sets a handler of SIGINT",
           "https://github.com/rpy2/rpy2/issues/769"),
    Unsafe("twisted.internet.reactor", "it opens the event loop's descriptors, which all children would share",
           "https://docs.scrapy.org/en/latest/_modules/scrapy/utils/reactorless.html"),
)  # fmt: skip

# What has one of these loaded has started what is in it: nobody links them for their functions alone.
UNSAFE_LIBRARIES: tuple[Unsafe, ...] = (
    Unsafe("libjulia*.so*", _JULIA, "https://github.com/JuliaPy/pyjulia/issues/448"),
    Unsafe("libjvm.so", "a Java virtual machine runs in the process, and hangs in forked children",
           "https://github.com/kivy/pyjnius/issues/640"),
    Unsafe("libR.so", "R runs in the process, with signal handlers of its own",
           "https://github.com/rpy2/rpy2/issues/769"),
)  # fmt: skip

_FILTERS = "it adds filters for its own messages, as it would in each child"
_OPENBLAS = "OpenBLAS ends its threads before a fork and starts others when they are needed"
_OWN_FORK = "it makes its own state fit for the child"
_KMP = "it sets KMP_* variables, which keep Intel's OpenMP out of a fork and mean nothing to others"

HARMLESS: tuple[Harmless, ...] = (
    Harmless("numpy", "thread", _OPENBLAS, "https://github.com/OpenMathLib/OpenBLAS/pull/343"),
    Harmless("scipy", "thread", _OPENBLAS, "https://github.com/OpenMathLib/OpenBLAS/pull/343"),
    Harmless("pyarrow", "thread", "jemalloc's thread only returns memory early; children go on without it",
             "https://github.com/jemalloc/jemalloc/issues/2125"),
    Harmless("numpy", "warnings", _FILTERS, "https://github.com/numpy/numpy/blob/main/numpy/__init__.py"),
    Harmless("scipy", "warnings", _FILTERS, "https://github.com/scipy/scipy/blob/main/scipy/special/_sf_error.py"),
    Harmless("requests", "warnings", _FILTERS, "https://github.com/psf/requests/blob/main/src/requests/__init__.py"),
    Harmless("urllib3", "warnings", _FILTERS, "https://github.com/urllib3/urllib3/blob/main/src/urllib3/__init__.py"),
    Harmless("random", "at_fork", "it seeds itself anew in each child",
             "https://github.com/python/cpython/blob/main/Lib/random.py"),
    Harmless("logging", "at_fork", _OWN_FORK, "https://github.com/python/cpython/blob/main/Lib/logging/__init__.py"),
    Harmless("threading", "at_fork", _OWN_FORK, "https://github.com/python/cpython/blob/main/Lib/threading.py"),
    Harmless("asyncio", "at_fork", _OWN_FORK, "https://github.com/python/cpython/blob/main/Lib/asyncio/events.py"),
    Harmless("concurrent.futures.thread", "at_fork", _OWN_FORK,
             "https://github.com/python/cpython/blob/main/Lib/concurrent/futures/thread.py"),
    Harmless("fsspec.spec", "at_fork", _OWN_FORK,
             "https://github.com/fsspec/filesystem_spec/blob/master/fsspec/spec.py"),
    Harmless("joblib", "at_fork", _OWN_FORK,
             "https://github.com/joblib/loky/blob/master/loky/backend/resource_tracker.py"),
    Harmless("matplotlib.font_manager", "at_fork", _OWN_FORK,
             "https://github.com/matplotlib/matplotlib/blob/main/lib/matplotlib/font_manager.py"),
    Harmless("joblib", "environment", _KMP, "https://github.com/joblib/joblib/blob/main/joblib/__init__.py"),
    Harmless("sklearn", "environment", _KMP, "https://github.com/scikit-learn/scikit-learn/blob/main/sklearn/__init__.py"),
    Harmless("rich.style", "random", "it draws numbers; Python seeds `random` anew in each child",
             "https://github.com/Textualize/rich/blob/master/rich/style.py"),
    Harmless("six", "path", "its finder on sys.meta_path serves six.moves alone",
             "https://github.com/benjaminp/six/blob/main/six.py"),
    Harmless("*.six", "path", "its finder on sys.meta_path serves six.moves alone",
             "https://github.com/benjaminp/six/blob/main/six.py"),
    Harmless("sqlalchemy.log", "logging", "it gives its own logger a level if that has none",
             "https://github.com/sqlalchemy/sqlalchemy/blob/main/lib/sqlalchemy/log.py"),
    Harmless("dill", "logging", "it sets up its own logger", "https://github.com/uqfoundation/dill/blob/master/dill/logger.py"),
)  # fmt: skip
