"""The mini study as tables: with two public sets beside the ladder, and as an experiment of several parts."""

import copy
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))

EVIL = '<script>alert("x")</script>'


@pytest.fixture(scope="session")
def tables():
    import mini_study

    from lossbench.tables.compact import compact

    return compact(mini_study.records(real=True))


@pytest.fixture(scope="session")
def answers(tables):
    """Return the answers of ``tables`` to the claims that ship."""
    from lossbench.analysis.answers import answer
    from lossbench.analysis.claims import read_claims

    return answer(tables, read_claims())


@pytest.fixture(scope="session")
def study():
    """Return the tables of a study whose parts are a ladder, three learning rates, uncertain boundaries, and
    forms of Dice.

    Labels of one loss and of one data set are hostile: they hold markup.
    """
    import mini_study

    from lossbench.store.note import Loss, Note, Part, Term
    from lossbench.tables.compact import compact

    records = [{**r, "parts": "ladder"} for r in mini_study.records(real=True, seeds=8)]
    for record in list(records):
        if record["cell"]["dataset"] == "scenes(foreground=0.01)" and record["cell"]["loss"] in (
            "ce",
            "dice",
        ):
            record["parts"] = "ladder,rates"
            for factor, gain in ((0.3, -0.05), (3.0, 0.02)):
                records.append(_changed(record, factor, gain))
    shifted = mini_study.records(8, foreground=(0.05,), losses=("ce", "dice", "focal"))
    records += [_renamed(r, "scenes(foreground=0.05, boundary_shift=0.2)", "uncertain") for r in shifted]
    forms = mini_study.records(8, foreground=(0.01,), losses=("dice", "0.5*ce + 0.5*dice"))
    records += [_renamed(r, "scenes(foreground=0.01, noise=2.0)", "variants") for r in forms]
    for record in records:
        record["loss_label"] += EVIL if record["cell"]["loss"] == "focal" else ""
        if record["cell"]["dataset"] == "sirst":
            record["cell"]["data_label"] = f"sirst{EVIL}"
    parts = [
        Part(name="ladder", title="C1: open to all losses"),
        Part(name="rates", title="Each loss at three rates.", fixed=True),
        Part(name="uncertain", title="C6: boundaries that the image does not determine.", fixed=True),
        Part(name="variants", title=f"C7: forms of Dice {EVIL}", fixed=True),
    ]
    dice = Term(name="dice", params={"over": "sample"}, formula="1 - 2|PG|/(|P|+|G|)", cite="Milletari 2016")
    losses = {"dice": Loss(label="dice", family="overlap", terms=[dice])}
    return compact(records, Note(name="mini", parts=parts, losses=losses, cells=[]))


def _changed(record: dict, factor: float, gain: float) -> dict:
    """Return a cell of the same block facts at another learning rate, better by ``gain`` everywhere; its key
    is its own.
    """
    new = copy.deepcopy(record)
    new["parts"], new["key"] = "rates", f"y{int(10 * factor):02d}{record['key'][3:]}"
    new["cell"]["recipe"] = {**record["cell"]["recipe"], "learning_rate": round(0.005 * factor, 5)}
    new["cell"]["data_label"] = f"{record['cell']['dataset']}, learning_rate {0.005 * factor:g}"
    for name in ("dice@0.5", "dice@val"):
        new["metrics"][name] += gain
    new["metrics"]["val_dice@0.5"] = new["metrics"]["dice@0.5"]
    record["metrics"]["val_dice@0.5"] = record["metrics"]["dice@0.5"]
    return new


def _renamed(record: dict, dataset: str, part: str) -> dict:
    import mini_study

    new = copy.deepcopy(record)
    new["cell"] |= mini_study.named(dataset)
    new["parts"], new["key"] = part, f"x{record['key'][1:]}"
    return new


@pytest.fixture(scope="session")
def derived(study):
    """Return the answers of the study of parts, as the report takes them."""
    from lossbench.analysis.answers import answer
    from lossbench.analysis.claims import read_claims

    return answer(study, read_claims())
