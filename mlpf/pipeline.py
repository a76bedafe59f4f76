"""Entry point: ``mlpf ...``, or ``python mlpf/pipeline.py ...`` from any directory."""

import sys
from pathlib import Path

if not __package__:
    # Run as a script: Python put this folder first on the path, where our module names could
    # shadow others. Replace it by the checkout, so that `mlpf` is the package beside us.
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(here.parent), *(p for p in sys.path if Path(p or ".").resolve() != here)]

from mlpf.cli import main

if __name__ == "__main__":
    main()
