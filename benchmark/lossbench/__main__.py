"""``python -m lossbench`` is ``lossbench``."""

from lossbench.cli.main import main

main()
