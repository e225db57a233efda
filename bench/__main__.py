"""`python3 -m bench`, as `make bench` runs it, from the root of the repository."""

import sys

from .cli import main

sys.exit(main())
