"""`python -m adallava` is the command line."""

import sys

from adallava.cli.main import main

sys.exit(main())
