"""``python -m benchmark`` is ``lossbench``."""

from benchmark.cli import main

main()
