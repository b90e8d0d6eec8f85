"""`python -m shadow` is the command `shadow`."""

from shadow.cli import main

main()
