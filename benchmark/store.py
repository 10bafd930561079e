"""One file a cell: the only place that touches records on disk.

    results = Store("results")
    results.open_for_writing()                          # UserError at once where the folder cannot be written; sweeps leftovers; call before training
    states = results.state([(cell.key, cell.fp), ...])  # {key: State("done"|"stale"|"failed"|"missing", why)}, from directory listings alone
    with results.claim(pairs) as mine: ...              # the pairs without a record that nobody else trains; leases are held inside
    results.write(record); results.write_error(key, fp, error="...", ...)
    results.read(key, fp) -> record | None; for record in results.records(): ...
    done, free = results.wait(busy_pairs)               # driver: pairs another sweep held; blocks until some are recorded or free again
    for note in results.notes: ...                      # what was set aside and why, for the caller to print
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = 1


@dataclass(frozen=True)
class State:
    """Where a cell stands: ``status`` is "done", "stale", "failed" or "missing"; ``why`` says it in one clause ("" when done)."""

    status: str
    why: str = ""
