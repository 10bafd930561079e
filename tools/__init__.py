"""What maintainers run from a checkout: ``python -m tools.NAME``; not part of the wheel."""

import sys


def arguments(usage: str, meaning: str) -> list[str]:
    """Return the words of the command line, one for each of ``usage``; else say what is needed, and end."""
    words = sys.argv[1:]
    if len(words) == len(usage.split()):
        return words
    name = sys.modules["__main__"].__spec__.name
    print(f"{name} needs {meaning}: python -m {name} {usage}", file=sys.stderr)
    raise SystemExit(2)
