"""What changed since the report before: verdicts and leaders are noted in a small file beside the tables, and compared."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import strictjson
from benchmark.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.analysis.answers import Answers

FILE = "last_report.json"


def compare(folder: Path, cells: pd.DataFrame, answers: Answers) -> list[str]:
    """Return sentences about what differs from the report before, and note the state of this one in ``folder``.

    A report made again from the same cells keeps what it was compared with, so that equal tables give equal reports.
    """
    now = _state(cells, answers)
    before = None
    try:
        old = strictjson.read(folder / FILE)
        before = old["before"] if old["now"]["mark"] == now["mark"] else old["now"]
        says = _differences(before, now) if before else ["This is the first report from this folder"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        before, says = None, ["This is the first report from this folder"]
    try:
        text = json.dumps({"now": now, "before": before}, indent=1, ensure_ascii=False, sort_keys=True)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None
    return says


def _state(cells: pd.DataFrame, answers: Answers) -> dict[str, Any]:
    board = answers.tables["leaderboard"]
    first = board[board["place"] == 1] if len(board) else board
    mark = "\n".join([answers.claims.digest, *sorted(cells["key"].astype(str) + cells["loss_fingerprint"].astype(str))])
    return {
        "mark": hashlib.sha256(mark.encode()).hexdigest()[:16],
        "cells": len(cells),
        "claims": answers.claims.digest,
        "verdicts": {verdict.claim.id: verdict.verdict for verdict in answers.verdicts},
        "leaders": {f"{label} ({recipe})": loss for label, recipe, loss in first.reindex(columns=["data_label", "recipe", "loss_label"]).values},
    }


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    says = [f"{new['cells']} cells instead of {old['cells']}"] if new["cells"] != old["cells"] else []
    if new["claims"] != old["claims"]:
        says.append(f"The file of claims is another one (sha256 {old['claims']}, now {new['claims']})")
    for name, verdict in new["verdicts"].items():
        was = old["verdicts"].get(name)
        if was != verdict:
            says.append(f"{name}: {verdict}, was {was}" if was else f"{name} is new: {verdict}")
    says += [f"{name} is gone: was {was}" for name, was in old["verdicts"].items() if name not in new["verdicts"]]
    for name, loss in new["leaders"].items():
        was = old["leaders"].get(name)
        if was != loss:
            says.append(f"{name}: {loss} leads, was {was}" if was else f"{name} is new: {loss} leads")
    return says or ["No verdict and no leader changed"]
