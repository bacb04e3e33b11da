"""`python -m pass_loader.cli`: `pass-pack`, of this Python."""

import sys

from .main import main

sys.exit(main())
