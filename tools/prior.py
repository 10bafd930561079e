"""The study's advice as a small table that ships with the package: ``python -m tools.prior RESULTS``.

It stands behind the answer on a user's own data as what is known of data like theirs. Written once the study
is there, from its stored tables; the file must stay below a megabyte.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lossbench.analysis import prior
from lossbench.analysis.answers import answer
from lossbench.analysis.claims import find_claims
from lossbench.base.errors import UserError
from lossbench.tables.files import TABLES, stored, write_csv

MOST = 1_000_000  # bytes


def write(results: Path, file: Path = prior.PRIOR) -> Path:
    """Write what a study advises; UserError where that is larger than a wheel should carry."""
    tables = stored(results, [name for name in TABLES if name != "images"])
    written = write_csv(prior.prior_table(answer(tables, find_claims(results)).tables), file)
    if written.stat().st_size > MOST:
        size = written.stat().st_size
        written.unlink()
        raise UserError(
            f"{file}: {size} bytes are more than the {MOST} of a table that ships with the package"
        )
    return written


if __name__ == "__main__":
    print(write(Path(sys.argv[1] if len(sys.argv) > 1 else "results/paper")))
