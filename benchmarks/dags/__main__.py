# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.dags FOLDER`, the same as `python -m benchmarks.dags.generate FOLDER`."""

from .generate import main

main()
