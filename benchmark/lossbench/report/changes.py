"""What changed since the report before: verdicts and leaders are noted in a small file beside the tables, and
compared.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossbench.base import files
from lossbench.base.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from lossbench.analysis.answers import Answers

FILE = "last_report.json"
FIRST = "This is the first report from this folder"


def compare(folder: Path, cells: pd.DataFrame, answers: Answers) -> tuple[str, ...]:
    """Return sentences about what differs from the report before, and note the state of this one in
    ``folder``.

    A report made again from the same cells keeps what it was compared with, so that equal tables give equal
    reports.
    """
    now = _state(cells, answers)
    before = None
    try:
        last = files.read(folder / FILE)
        # Made again from the same cells, this report would else say that nothing has changed since itself.
        before = last["before"] if last["now"]["mark"] == now["mark"] else last["now"]
        says = differences(before, now) if before else [FIRST]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or damaged
        before, says = None, [FIRST]
    text = json.dumps({"now": now, "before": before}, indent=1, ensure_ascii=False, sort_keys=True)
    try:
        (folder / FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None
    return tuple(says)


def _state(cells: pd.DataFrame, answers: Answers) -> dict[str, Any]:
    # Of each data set the first loss alone: places below it change with every seed.
    board = answers.tables["leaderboard"]
    first = board[board["place"] == 1] if len(board) else board
    leaders = first.reindex(columns=["data_label", "recipe", "loss_label"]).itertuples(index=False, name=None)
    # A report made again from the same cells and claims is the same report, whenever it is made.
    sources = sorted(cells["key"].astype(str) + cells["loss_fingerprint"].astype(str))
    return {
        "mark": hashlib.sha256("\n".join([answers.claims.digest, *sources]).encode()).hexdigest()[:16],
        "cells": len(cells),
        "claims": answers.claims.digest,
        "verdicts": {verdict.claim.id: verdict.verdict for verdict in answers.verdicts},
        "leaders": {f"{label} ({recipe})": loss for label, recipe, loss in leaders},
    }


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return one sentence for each thing that differs between two states, or the one that says that none
    does.
    """
    says = []
    if new["cells"] != old["cells"]:
        says.append(f"{new['cells']} cells instead of {old['cells']}")
    if new["claims"] != old["claims"]:
        says.append(f"The file of claims is another one (sha256 {old['claims']}, now {new['claims']})")
    for name, verdict in new["verdicts"].items():
        was = old["verdicts"].get(name)
        if was != verdict:
            says.append(f"{name}: {verdict}, was {was}" if was else f"{name} is new: {verdict}")
    gone = [name for name in old["verdicts"] if name not in new["verdicts"]]
    says += [f"{name} is gone: was {old['verdicts'][name]}" for name in gone]
    for name, loss in new["leaders"].items():
        was = old["leaders"].get(name)
        if was != loss:
            says.append(f"{name}: {loss} leads, was {was}" if was else f"{name} is new: {loss} leads")
    return says or ["No verdict and no leader changed"]
