# SPDX-License-Identifier: Apache-2.0
"""What is known of libraries and forks: data, each entry with its reason and its source.

Only what an import does belongs here. Much more is unsafe once it was used before a fork: a gRPC channel, a CUDA
tensor, a Kafka producer, a Mongo client. A parent that imports such a library and does not use it is fine;
docs/preload.md lists them.
"""

from __future__ import annotations

from typing import NamedTuple


class Unsafe(NamedTuple):
    """A module, or a shared library by the name of its file, that must not be loaded in a process that forks."""

    pattern: str
    reason: str
    source: str


class Harmless(NamedTuple):
    """An effect of an import, of one of verdict.KINDS, that the canary sees and that does not matter.

    detail: a pattern for the finding's detail, with {top} for the top-level package of the module that did it.
    """

    pattern: str
    kind: str
    reason: str
    source: str
    detail: str = "*"


_CUDA = "it opens a CUDA context, which no forked child can use"
_JULIA = "it starts Julia in the process, whose threads and signal handlers do not survive a fork"
_DATADOG = "it instruments libraries in every child, whether or not that child asked for it"
_GEVENT = "it replaces functions of the standard library by gevent's, for every child"

UNSAFE: tuple[Unsafe, ...] = (
    Unsafe("cudf", _CUDA, "https://github.com/NVIDIA/cudf/issues/4827"),
    Unsafe("dask_cudf", _CUDA, "https://github.com/rapidsai/dask-cuda/issues/867"),
    Unsafe("ddtrace.auto", _DATADOG, "https://github.com/DataDog/dd-trace-py/blob/main/ddtrace/auto.py"),
    Unsafe("ddtrace.bootstrap.sitecustomize", _DATADOG,
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
_SETS_UP = "Airflow sets up each process that imports it, children and parent alike"
_AIRFLOW = "https://github.com/apache/airflow/blob/main/airflow-core/src/airflow/settings.py"
_KMP = "it sets KMP_* variables, which keep Intel's OpenMP out of a fork and mean nothing to others"

HARMLESS: tuple[Harmless, ...] = (
    Harmless("*", "atexit", "it runs at the end of the parent, and in children that run such functions at all",
             "https://docs.python.org/3/library/atexit.html"),
    Harmless("numpy", "thread", _OPENBLAS, "https://github.com/OpenMathLib/OpenBLAS/pull/343"),
    Harmless("scipy", "thread", _OPENBLAS, "https://github.com/OpenMathLib/OpenBLAS/pull/343"),
    Harmless("*", "thread", "jemalloc's thread only returns memory early; children go on without it",
             "https://github.com/jemalloc/jemalloc/issues/2125", "left the native thread 'jemalloc_bg_thd' *"),
    Harmless("*", "warnings", "it adds a filter for its own category, which only its own code warns of",
             "https://docs.python.org/3/library/warnings.html", "added the filter *:{top}.*"),
    Harmless("botocore", "warnings", _FILTERS,
             "https://github.com/boto/botocore/blob/develop/botocore/httpsession.py"),
    Harmless("numpy", "warnings", _FILTERS, "https://github.com/numpy/numpy/blob/main/numpy/__init__.py"),
    Harmless("scipy", "warnings", _FILTERS, "https://github.com/scipy/scipy/blob/main/scipy/special/_sf_error.py"),
    Harmless("requests", "warnings", _FILTERS, "https://github.com/psf/requests/blob/main/src/requests/__init__.py"),
    Harmless("random", "at_fork", "it seeds itself anew in each child",
             "https://github.com/python/cpython/blob/main/Lib/random.py"),
    Harmless("logging", "at_fork", _OWN_FORK, "https://github.com/python/cpython/blob/main/Lib/logging/__init__.py"),
    Harmless("threading", "at_fork", _OWN_FORK, "https://github.com/python/cpython/blob/main/Lib/threading.py"),
    Harmless("asyncio", "at_fork", _OWN_FORK, "https://github.com/python/cpython/blob/main/Lib/asyncio/events.py"),
    Harmless("concurrent.futures.thread", "at_fork", _OWN_FORK,
             "https://github.com/python/cpython/blob/main/Lib/concurrent/futures/thread.py"),
    Harmless("fsspec.spec", "at_fork", _OWN_FORK,
             "https://github.com/fsspec/filesystem_spec/blob/master/fsspec/spec.py"),
    Harmless("bson", "at_fork", _OWN_FORK, "https://github.com/mongodb/mongo-python-driver/blob/master/bson/__init__.py"),
    Harmless("pymongo", "at_fork", _OWN_FORK,
             "https://github.com/mongodb/mongo-python-driver/blob/master/pymongo/synchronous/mongo_client.py"),
    Harmless("filelock", "at_fork", _OWN_FORK, "https://github.com/tox-dev/filelock/blob/main/src/filelock/_api.py"),
    Harmless("filelock", "trace", "its audit hook looks at forks alone, and only at locks that are being taken",
             "https://github.com/tox-dev/filelock/blob/main/src/filelock/_api.py"),
    Harmless("huggingface_hub", "at_fork", _OWN_FORK,
             "https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/utils/_http.py"),
    Harmless("mlflow", "at_fork", _OWN_FORK,
             "https://github.com/mlflow/mlflow/blob/master/mlflow/tracing/provider.py"),
    Harmless("joblib", "at_fork", _OWN_FORK,
             "https://github.com/joblib/loky/blob/master/loky/backend/resource_tracker.py"),
    Harmless("matplotlib.font_manager", "at_fork", _OWN_FORK,
             "https://github.com/matplotlib/matplotlib/blob/main/lib/matplotlib/font_manager.py"),
    Harmless("airflow", "at_fork", _OWN_FORK, _AIRFLOW),
    Harmless("airflow", "logging", _SETS_UP, _AIRFLOW),
    Harmless("airflow", "path", _SETS_UP, _AIRFLOW),
    Harmless("airflow", "warnings", _SETS_UP, _AIRFLOW),
    Harmless("joblib", "environment", _KMP, "https://github.com/joblib/joblib/blob/main/joblib/__init__.py"),
    Harmless("sklearn", "environment", _KMP, "https://github.com/scikit-learn/scikit-learn/blob/main/sklearn/__init__.py"),
    Harmless("rich.style", "random", "it draws numbers; Python seeds `random` anew in each child",
             "https://github.com/Textualize/rich/blob/master/rich/style.py"),
    Harmless("tlz", "path", "its finder on sys.meta_path serves tlz alone",
             "https://github.com/pytoolz/toolz/blob/master/tlz/_build_tlz.py"),
    Harmless("six", "path", "its finder on sys.meta_path serves six.moves alone",
             "https://github.com/benjaminp/six/blob/main/six.py"),
    Harmless("*.six", "path", "its finder on sys.meta_path serves six.moves alone",
             "https://github.com/benjaminp/six/blob/main/six.py"),
)  # fmt: skip
