"""`python -m sa1b_tfds` is the command `sa1b`."""

import sys

from sa1b_tfds.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
