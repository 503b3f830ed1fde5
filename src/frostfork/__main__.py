# SPDX-License-Identifier: Apache-2.0
"""`python -m frostfork`: the command line."""

from frostfork.cli import main

if __name__ == "__main__":
    main()
