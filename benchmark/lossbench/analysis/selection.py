"""Which cells a test is about: parts, data sets and conditions first, then the arm of each loss.

Whatever is chosen (the best loss of a list, the best rate of a loss) is chosen by validation scores and
judged on test images. A choice is made among alternatives that were all trained on the same seeds. That of
all seeds flatters the value that is tested: a training that went well by chance did so on validation and on
test images. That of the *other* seeds (``crossed``) does not; a single seed chooses for itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pandas as pd

from lossbench.analysis.claims import Condition, Length, Losses, Test, Value
from lossbench.analysis.seeds import FAMILY, FOREGROUND, numbers
from lossbench.base import specs
from lossbench.base.errors import UserError, nearest

RATE, STEPS = "recipe.learning_rate", "recipe.steps"
UNLEARNT = "unlearnt"  # true for the cells of data set variants that were not learnt
UNMEASURED = "unmeasured"  # true for those of which no reference says whether they were


def real(cells: pd.DataFrame, sets: pd.DataFrame | None) -> pd.DataFrame:
    """Return the cells of data that are not generated: nobody chooses a loss for a generator. ``sets``: the
    table 'datasets', which a folder without a note lacks.
    """
    made = () if sets is None else sets.loc[sets["family"] == "synthetic", "dataset"]
    # Without it a posterior tells, which only a generator knows.
    return cells[~cells["dataset"].isin(made) & numbers(cells, "nll_bayes").isna()]


def select_loss(cells: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the cells of a loss, named by its spec, another spelling of it or, failing that, its label."""
    # The exact spec first: it is the only name that can mean no other loss, and the fastest to look up.
    same = cells[cells["loss"] == name]
    if not len(same):
        same = cells[cells["loss"].isin(_spelled(cells, name))]
    return same if len(same) else cells[cells["loss_label"] == name]


def _spelled(cells: pd.DataFrame, name: str) -> list[str]:
    """Return the losses of the cells that ``name`` is another spelling of, with defaults written out or under
    another name. What the defaults are the cells say, not today's catalogue.
    """
    if "loss_spellings" not in cells:
        return []
    known = cells.drop_duplicates("loss")[["loss", "loss_spellings"]].itertuples(index=False, name=None)
    return [loss for loss, spellings in known if specs.means(name, loss, spellings.split(" | "))]


def select(cells: pd.DataFrame, test: Test) -> pd.DataFrame:
    """Return the cells of the parts, data sets and conditions of a test; UserError for an unknown column.

    Data set variants that were not learnt are left out, but where a test asks about a length by itself."""
    own = meeting(_of_parts(cells, test), test.where, test.length)
    if UNLEARNT not in own or not asks_who_is_learnt(test):
        return own
    kept = own[~own[UNLEARNT]]
    if len(own) and not len(kept):
        raise UserError("none of its data set variants was learnt, so nothing says who ends where")
    return kept


def asks_who_is_learnt(test: Test) -> bool:
    """Return whether a test leaves out what was not learnt."""
    # What was not learnt shows who learns sooner. A test of the shortest training asks just that.
    return test.length != "shortest" and STEPS not in test.where


def select_minus(cells: pd.DataFrame, test: Test) -> pd.DataFrame:
    """Return the cells of what a test takes off: its conditions, but those that ``minus`` names otherwise."""
    where = {**test.where, **test.minus.where}
    return meeting(_of_parts(cells, test), where, test.minus.length or test.length)


def untrained(cells: pd.DataFrame, test: Test, parts: pd.DataFrame) -> tuple[list[str], int]:
    """Return which of the data sets that the parts of a test plan still lack cells of one of its losses, and
    how many are planned; a choice among scenes by what they hold counts as one data set.
    """
    # Where a test names properties of the data, the plan does not say which sets have them; older notes do
    # not say which sets were planned.
    described = test.foreground is not None or any(column.startswith("data.") for column in test.where)
    if described or "datasets" not in parts:
        return [], 0
    texts = parts.loc[parts["part"].isin(test.part), "datasets"]
    names = dict.fromkeys(
        specs.parse(spec, "data set")[0].name for text in texts for spec in json.loads(text)
    )
    planned = [name for name in names if not test.data or name in test.data]
    here = meeting(_of_parts(cells, test), test.where, test.length)
    trained = [set(select_loss(here, loss)["dataset_name"]) for loss in test.losses]
    return [name for name in planned if any(name not in own for own in trained)], len(planned)


def _of_parts(cells: pd.DataFrame, test: Test) -> pd.DataFrame:
    if test.part:
        cells = cells[in_parts(cells, test.part)]
    if test.data:
        cells = cells[cells["dataset_name"].isin(test.data)]
    if test.foreground is not None:
        cells = meeting(cells, {FOREGROUND: test.foreground}) if FOREGROUND in cells else cells.iloc[:0]
    return cells


def in_parts(cells: pd.DataFrame, parts: tuple[str, ...]) -> pd.Series:
    """Return which cells belong to one of these parts of their experiment."""
    # A few distinct texts stand for all cells: each is split once.
    texts = cells["parts"].fillna("").astype(str)
    wanted = {text: not set(parts).isdisjoint(text.split(",")) for text in texts.unique()}
    return texts.map(wanted).astype(bool)


def meeting(
    cells: pd.DataFrame, where: Mapping[str, Condition], length: Length | None = None
) -> pd.DataFrame:
    """Return the cells that meet conditions, of these those of each data set's longest or shortest
    training.
    """
    for column, wanted in where.items():
        if column not in cells:
            raise UserError(f"the table 'cells' has no column '{column}'{nearest(column, cells.columns)}")
        cells = cells[_meets(cells, column, wanted)]
    if length and len(cells):
        steps = numbers(cells, STEPS)
        end = "max" if length == "longest" else "min"
        # Each data set has its own ends: public sets and scenes are trained for different lengths.
        cells = cells[steps == steps.groupby(cells["dataset"], observed=True).transform(end)]
    return cells


def _meets(cells: pd.DataFrame, column: str, wanted: Condition) -> pd.Series:
    if isinstance(wanted, str):
        return (cells[column].astype(str) == wanted).astype(bool)
    values = numbers(cells, column)
    return values.between(*wanted) if isinstance(wanted, tuple) else values == float(wanted)


def chooses(test: Test) -> bool:
    """Return whether anything that a test compares is chosen by validation scores."""
    minus = (test.minus.of, test.minus.against) if test.minus else ()
    return test.tuned or any(isinstance(names, tuple) for names in (test.of, test.against, *minus))


def arm(cells: pd.DataFrame, names: Losses, value: Value, crossed: bool = True) -> pd.DataFrame:
    """Return one cell a block: of the loss ``names``, or of the one of a list that is best on validation.

    The choice is made per data set and recipe, by the mean validation score over the blocks that hold all of
    them, of the other seeds or (``crossed`` is false) of all; other blocks are left out."""
    if isinstance(names, str):
        return select_loss(cells, names)
    score = validation_score(cells, value)
    listed = pd.concat([select_loss(cells, name) for name in names])
    listed = listed.assign(score=listed[score].astype(float)).dropna(subset="score")
    # A mean over other seeds than its rivals' would let chance choose.
    whole = listed.groupby("block", observed=True)["loss"].transform("nunique") == len(names)
    return _best(listed[whole], ["dataset", "recipe"], ["loss"], crossed).drop(columns="score")


def tuned(cells: pd.DataFrame, value: Value, crossed: bool = True) -> pd.DataFrame:
    """Return each loss at the learning rate that its own mean validation score prefers, by data set, over the
    other seeds or (``crossed`` is false) over all.

    Recipes of one data set that differ only in their learning rate are one family, which takes the place of
    the recipe, since start, order and split follow from data set and seed (certificates are still
    compared)."""
    for column in (FAMILY, RATE):
        if column not in cells:
            raise UserError(
                f"the table 'cells' has no column '{column}'; `lossbench report` rebuilds the tables "
                "from the records"
            )
    score = validation_score(cells, value)
    cells = cells.assign(score=cells[score].astype(float), recipe=cells[FAMILY]).dropna(subset="score")
    group = ["dataset", "recipe"]
    rates = cells.groupby(group, observed=True)[RATE].transform("nunique")
    # As above: all rates of a loss are compared on the same seeds.
    whole = cells.groupby([*group, "loss", "seed"], observed=True)[RATE].transform("nunique") == rates
    chosen = _best(cells[whole], [*group, "loss"], [RATE], crossed).drop(columns="score")
    names = [chosen[column].astype(str) for column in (*group, "seed")]
    # The block is named anew, since cells that were trained at different rates are now one pair.
    return chosen.assign(block=names[0] + " / " + names[1] + " / " + names[2])


def validation_score(cells: pd.DataFrame, value: Value) -> str:
    """Return the validation column that chooses for a tested value.

    It is that over all images, those without the class among them; where records do not hold it, Dice at the
    validation threshold if this is where the value is tested, else at 0.5."""
    columns = [value] if isinstance(value, str) else list(value)
    # A value at the tuned threshold is chosen for by what that threshold gives on validation.
    first = "val_dice@val" if all(column.endswith("@val") for column in columns) else "val_dice@0.5"
    # Records of protocol 1 do not hold the first.
    for name in ("val_dice_all@0.5", first, "val_dice_best"):
        if name in cells and cells[name].notna().any():
            return name
    raise UserError(
        f"the table 'cells' has no column '{first}' to choose by; `lossbench report` rebuilds the "
        "tables from the records"
    )


def _best(cells: pd.DataFrame, group: list[str], alternatives: list[str], crossed: bool) -> pd.DataFrame:
    """Return of each group and seed the cell of the alternative whose mean score in the group, over the other
    seeds or over all, is the largest; of equals the first.
    """
    if not len(cells):
        return cells
    cells = cells.sort_values([*group, "seed", *alternatives], kind="stable", ignore_index=True)
    scores = cells["score"].groupby([cells[name] for name in (*group, *alternatives)], observed=True)
    total, count = scores.transform("sum"), scores.transform("size")
    means = total / count
    if crossed:
        means = ((total - cells["score"]) / (count - 1).clip(lower=1)).where(count > 1, means)
    # Means that are equal on paper differ in their last digits, and must count as equal.
    means = means.round(12)
    top = means.groupby([cells[name] for name in (*group, "seed")], observed=True, sort=False).idxmax()
    return cells.loc[top.sort_values()]
