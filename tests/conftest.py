"""Shape annotations are checked at run time while the tests run; published formulas lie in `reference/`."""

import os
import sys
from importlib import import_module
from pathlib import Path

from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")  # networks this small are faster on one core, and tests run side by side

sys.path.insert(0, str(Path(__file__).parent))  # `from reference.loss import ...`

import_module("reference.typechecker")  # the hook looks for it among the modules that are there
install_import_hook("simmim", "reference.typechecker.checked")
