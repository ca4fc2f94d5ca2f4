"""``python -m capgap``: the command line."""

from capgap.cli import main

main()
