# SPDX-License-Identifier: Apache-2.0
"""What a new interpreter runs to become a root."""

# First its search path becomes the owner's: then the package can be found.
BOOTSTRAP = (
    "import marshal,os,sys;"
    "found=marshal.loads(os.pread({0},os.fstat({0}).st_size,0));"
    "os.close({0});"
    "sys.path[:]=found[0];"
    "from frostfork._zygote.root import main;"
    "main(found)"
)
