"""`python -m ecif_client.cli`."""

import sys

from ecif_client.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
