"""`python -m monai_unetfamily.cli` is the command `unetfamily`."""

import sys

from monai_unetfamily.cli import main

sys.exit(main())
