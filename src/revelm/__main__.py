"""``python -m revelm`` is the command line."""

import sys

from revelm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
