"""`python -m gpubackprop` is the command `gpubackprop`."""

import sys

from .cli import main

sys.exit(main())
