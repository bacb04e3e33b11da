"""`python -m pass_loader.cli`: `pass-pack`, of this Python."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
