"""`python -m farming_guide.demo` runs the demonstration."""

import sys

from farming_guide.demo.story import main

sys.exit(main())
