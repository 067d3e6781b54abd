"""`python -m vae_fast`: hands the command line to vae_fast.cli.main."""

from __future__ import annotations

from vae_fast.cli.main import main
from vae_fast.cli.ranks import leave

if __name__ == "__main__":
    leave(main())
