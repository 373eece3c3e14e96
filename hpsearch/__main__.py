"""``python -m hpsearch`` is ``hpsearch``."""

from hpsearch.cli.app import main

main()
