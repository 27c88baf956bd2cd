"""`python -m minifcn`: the command line of minifcn.cli."""

import sys

from minifcn.cli import main

sys.exit(main())
