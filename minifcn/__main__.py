"""`python -m minifcn`: the command line of minifcn.cli."""

import sys

from minifcn.cli import main

if __name__ == "__main__":
    sys.exit(main())
