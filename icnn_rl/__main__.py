"""``python -m icnn_rl``, the same as ``icnn-rl``."""

import sys

from icnn_rl.cli import main

if __name__ == "__main__":
    sys.exit(main())
