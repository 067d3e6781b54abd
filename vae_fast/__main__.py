"""`python -m vae_fast`: hands the command line to vae_fast.cli.main."""

from __future__ import annotations

import sys

from vae_fast.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
