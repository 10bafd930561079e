"""Numbers in README and docs come from tables: what stands between two markers of a Markdown file is written
here, never by hand.

A marker is a comment that names what it shows, ``<!-- effect C9.1 -->``; it ends at ``<!-- / -->``.
There are

- study: cells, blocks, collapses, losses, seeds, core-hours, commit
- hours: core-hours alone, and the processor
- verdicts: one row a claim: its verdict and the test that decided
- decided: the same without claims that no cells can test yet, which it names
- tally: how many claims got which verdict
- power: how many primary tests could detect the smallest effect of interest
- verdict CLAIM: the verdict in one word
- tests CLAIM: one row a test of the claim: verdict, effect, interval, adjusted p, seeds, minimum detectable
  effect; below it why each primary test was decided so, and the effect of each level
- effect TEST: effect and interval
- levels TEST: the effect of each level of a test
- lengths: what longer training leaves of each lead
- sure TEST: adjusted p, seeds, minimum detectable effect and smallest effect of interest
- mean COLUMN | LOSS | DATA: mean of a column of `cells` over the seeds of one loss on one data set, by labels
- share COLUMN | LOSS | DATA: the same in percent
- public: every public set at each length, every loss by three scores; an empty mask beside them
- trial: what experiments/trial.toml left in results/trial, row by row with its seeds
- published: the values of ``experiments/published.csv`` beside ours
- figure NAME, caption NAME: a figure of the results folder, and its caption

They show results/paper; ``<!-- effect C9.1 in results/study -->`` shows another folder.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossbench.base import columns, words
from lossbench.base.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas as pd

FILES = ("README.md", "docs/findings.md", "docs/reproduce.md", "docs/first_study.md", "docs/study.md")

MARK = re.compile(r"(?P<head><!-- (?P<call>[a-z][^>]*?) -->)(?P<body>.*?)(?P<tail><!-- / -->)", re.DOTALL)

SIGNS = {"supported": "✓", "contradicted": "✕", "equivalent": "≈", "inconclusive": "?", "not testable": "–"}


@dataclass(frozen=True)
class Results:
    """A results folder's tables, each read when it is first asked for, the checkout, and the file in it that
    is written.
    """

    folder: Path
    root: Path
    file: str = FILES[0]

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        return self._csv("verdicts")

    @cached_property
    def levels(self) -> pd.DataFrame:
        return self._csv("levels")

    @cached_property
    def speeds(self) -> pd.DataFrame:
        return self._csv("speeds")

    @cached_property
    def board(self) -> pd.DataFrame:
        return self._csv("leaderboard")

    @cached_property
    def cells(self) -> pd.DataFrame:
        from lossbench.tables.files import load_table

        return load_table(self.folder, "cells")

    def link(self, path: Path) -> str:
        """Return a path as a link from the file that is written."""
        return Path(os.path.relpath(path, (self.root / self.file).parent)).as_posix()

    def _csv(self, name: str) -> pd.DataFrame:
        import pandas as pd

        path = self.folder / "tables" / f"{name}.csv"
        if not path.is_file():
            raise UserError(f"{path} does not exist; `lossbench report --results {self.folder}` writes it")
        return pd.read_csv(path, keep_default_na=True)


def write(root: Path, folder: Path) -> list[Path]:
    """Fill the markers of README and docs from a results folder; returns the files that changed."""
    changed = []
    for name in FILES:
        path = root / name
        if not path.is_file():
            raise UserError(f"{path} does not exist; run this in a checkout of lossbench")
        old = path.read_text(encoding="utf-8")
        new = fill(old, Results(folder, root, name))
        if new != old:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


def fill(text: str, results: Results) -> str:
    """Return a text with everything between its markers written again from the tables."""
    return MARK.sub(lambda found: found["head"] + show(found["call"], results) + found["tail"], text)


def calls(text: str) -> list[str]:
    """Return what the markers of a text ask for, in their order."""
    return [found["call"] for found in MARK.finditer(text)]


def prose(text: str) -> str:
    """Return a text without what stands between its markers, and without the markers."""
    return MARK.sub("", text)


def show(call: str, results: Results) -> str:
    """Return what a marker shows; raises UserError for a marker that is not known or names what is not in the
    tables.
    """
    call, _, folder = call.partition(" in results/")
    if folder:
        results = _other(results.folder.parent / folder, results.root, results.file)
    name, _, rest = call.partition(" ")
    if name not in SHOWN:
        raise UserError(f"marker '{call}': there is no '{name}'{nearest(name, SHOWN)}")
    try:
        return SHOWN[name](results, rest.strip())
    except (
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
    ) as error:  # as the derived tables (CSV) say, whatever became of them
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"marker '{call}': the tables in {results.folder} do not say it ({why}); `lossbench "
            "report` writes them again"
        ) from None


@cache
def _other(folder: Path, root: Path, file: str) -> Results:
    return Results(folder, root, file)


def _study(results: Results, _: str) -> str:
    cells = results.cells
    collapsed = int((cells["outcome"] == "collapsed").sum())
    per_set = cells.groupby(["dataset", "recipe"], observed=True)["seed"].nunique()
    seeds = f"{per_set.min()}" if per_set.min() == per_set.max() else f"{per_set.min()} to {per_set.max()}"
    commits = sorted({str(commit)[:8] or "unknown" for commit in cells["commit"]})
    return (
        f"{len(cells):,} trainings in {cells['block'].nunique():,} paired blocks ({collapsed:,} "
        f"collapsed, and counted), {cells['loss'].nunique()} "
        f"losses, {cells['dataset'].nunique()} data set variants, {seeds} seeds; "
        f"{_core_hours(cells):.1f} core-hours; commit {', '.join(commits)}"
    )


def _hours(results: Results, _: str) -> str:
    from lossbench.tables.files import load_table

    origins = load_table(results.folder, "origins")
    processors = sorted({str(cpu) for cpu in origins["cpu"] if cpu})
    return f"{_core_hours(results.cells):.1f} core-hours ({', '.join(processors) or 'processor unknown'})"


def _core_hours(cells: pd.DataFrame) -> float:
    return float(cells["cpu_seconds"].astype(float).sum()) / 3600


def _verdicts(results: Results, _: str) -> str:
    return _rows(results, results.verdicts)


def _decided(results: Results, _: str) -> str:
    """Return the verdicts that are in, and how many claims still lack cells."""
    rows = results.verdicts
    open_ = rows["claim_verdict"] == "not testable"
    waiting = ", ".join(dict.fromkeys(rows.loc[open_, "claim"]))
    lacking = f"Not yet testable, for want of cells: {waiting}.\n\n" if waiting else ""
    return _rows(results, rows[~open_]) + lacking


def _rows(results: Results, verdicts: pd.DataFrame) -> str:
    lines = [
        "| claim | verdict | effect [95 % interval] | adjusted p | the test that decided |",
        "|---|---|---|---|---|",
    ]
    page = "" if results.file == FILES[1] else results.link(results.root / FILES[1])
    text = results.root / FILES[1]
    chapters = text.read_text(encoding="utf-8") if text.is_file() else ""
    for claim, tests in verdicts.groupby("claim", sort=False):
        row = deciding(tests)
        verdict = row["claim_verdict"]
        # Claims of the second study have no chapters yet, or others of the same name.
        own = not chapters or f"## {claim}. {row['title']}\n" in chapters
        lines.append(
            f"| {f'[{claim}]({page}#{claim.lower()})' if own else claim} {row['title']} "
            f"| {SIGNS[verdict]} {verdict} | {_measured(row)} "
            f"| {words.p_value(row['p_adjusted'])} | {row['test']}: {row['says']} |"
        )
    return _block(lines)


def deciding(tests: pd.DataFrame) -> dict[str, Any]:
    """Return the primary test that decided about a claim: the surest with the claim's own verdict."""
    primary = tests[tests["role"] == "primary"]
    own = primary[primary["verdict"] == primary["claim_verdict"]]
    chosen = own if len(own) else primary
    return chosen.sort_values("p_adjusted", kind="stable").iloc[0].to_dict()


def _tally(results: Results, _: str) -> str:
    counts = results.verdicts.drop_duplicates("claim")["claim_verdict"].value_counts()
    told = [f"{counts[name]} {name}" for name in SIGNS if name in counts]
    return " · ".join(told)


def _power(results: Results, _: str) -> str:
    primary = results.verdicts[results.verdicts["role"] == "primary"]
    known = primary.dropna(subset=["mde"])
    enough = int((known["mde"] <= known["margin"]).sum())
    decided = int(primary["verdict"].isin(["supported", "contradicted", "equivalent"]).sum())
    more = (
        known["mde"] / known["margin"]
    ).median() ** 2  # the detectable effect falls with the root of the number of seeds
    return (
        (
            f"{enough} of {len(primary)} primary tests have a minimum detectable effect (80 % power) no "
            "larger than the smallest effect of interest"
        )
        + (f"; {len(primary) - len(known)} have none" if len(known) < len(primary) else "")
        + (
            f"; the median test would need {words.significant(more, 2)} times as many seeds"
            if more > 1
            else ""
        )
        + f". {decided} of {len(primary)} are decided"
    )


def _verdict(results: Results, claim: str) -> str:
    return _of(results, "claim", claim).iloc[0]["claim_verdict"]


def _tests(results: Results, claim: str) -> str:
    lines = [
        "| test | says | verdict | effect [95 % interval] | adjusted p | seeds | detectable | of interest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in _of(results, "claim", claim).to_dict("records"):
        name = f"**{row['test']}**" if row["role"] == "primary" else row["test"]
        kind = columns.form(row["estimand"])
        lines.append(
            f"| {name} | {row['says']} | {_marked(row['verdict'])} | {_measured(row)} "
            f"| {words.p_value(row['p_adjusted'])} "
            f"| {_count(row['n_seeds'])} | {_size(row['mde'], kind)} | {_size(row['margin'], kind)} |"
        )
    lines.append("")
    for row in _of(results, "claim", claim).to_dict("records"):
        if row["role"] == "primary":
            lines.append(f"- **{row['test']}**: {row['why']}.{_levels(results, row)}")
    return _block(lines)


def _levels(results: Results, row: dict[str, Any]) -> str:
    """Return the effect of each level that a mean or slope is made of, in one sentence."""
    if (results.levels["test"] == row["test"]).sum() < 2:
        return ""
    return f" Level by level: {_each_level(results, row['test'])}."


def _each_level(results: Results, test: str) -> str:
    kind = columns.form(_of(results, "test", test).iloc[0]["estimand"])
    own = results.levels[results.levels["test"] == test].to_dict("records")
    return "; ".join(f"{level['level']} {words.effect(level['estimate'], kind)}" for level in own)


def _lengths(results: Results, _: str) -> str:
    return _block([f"- {says}." for says in results.speeds["says"]])


def _marked(verdict: str) -> str:
    return f"{SIGNS[verdict]} {verdict}" if verdict in SIGNS else verdict


def _effect(results: Results, test: str) -> str:
    return _measured(_of(results, "test", test).iloc[0].to_dict())


def _sure(results: Results, test: str) -> str:
    row = _of(results, "test", test).iloc[0].to_dict()
    kind = columns.form(row["estimand"])
    adjusted = "adjusted p" if row["role"] == "primary" else "p"
    p = words.p_value(row["p_adjusted"])
    return (
        f"{adjusted} {p if p.startswith('<') else '= ' + p}, {_count(row['n_seeds'])} seeds on "
        f"{_count(row['n_variants'])} data set variants, "
        f"minimum detectable effect {_size(row['mde'], kind)}, smallest of interest "
        f"{_size(row['margin'], kind)}"
    )


def _mean(results: Results, rest: str) -> str:
    return words.significant(_value(results, rest), 3)


def _share(results: Results, rest: str) -> str:
    return words.percent(_value(results, rest), 2)


def _value(results: Results, rest: str) -> float:
    parts = [part.strip() for part in rest.split("|")]
    if len(parts) != 3:
        raise UserError(f"marker 'mean {rest}': must read 'mean COLUMN | LOSS | DATA'")
    column, loss, data = parts
    cells = results.cells
    if column not in cells:
        raise UserError(
            f"marker 'mean {rest}': the table 'cells' has no column "
            f"'{column}'{nearest(column, cells.columns)}"
        )
    for name, value in (("loss_label", loss), ("data_label", data)):
        cells = cells[cells[name] == value]
        if not len(cells):
            raise UserError(
                f"marker 'mean {rest}': no cell has {name} "
                f"'{value}'{nearest(value, sorted(set(results.cells[name])))}"
            )
    return float(cells[column].astype(float).mean())


def _published(results: Results, _: str) -> str:
    import pandas as pd

    theirs = pd.read_csv(results.root / "experiments" / "published.csv")
    losses = list(dict.fromkeys(theirs["loss"]))
    lines = ["| Dice, % | " + " | ".join(losses) + " |", "|---" * (len(losses) + 1) + "|"]
    for data, rows in theirs.groupby("data", sort=False):
        values = rows.set_index("loss")["dice"].reindex(losses)
        lines.append(f"| {data} (published) | " + " | ".join(words.number(v, 1) for v in values) + " |")
    ours = results.board[~results.board["dataset"].str.startswith("scenes")]
    for data, rows in ours.groupby("data_label", sort=False):
        by_label = rows.drop_duplicates("loss_label").set_index("loss_label")
        lines.append(f"| {data} | " + " | ".join(_scored(by_label, loss) for loss in losses) + " |")
    return _block(lines)


def _public(results: Results, _: str) -> str:
    """Return one row for each public set and length, a column for each loss: scores over the seeds that its
    losses share; and what a mask without any mark would score there.
    """
    from lossbench.tables.files import load_table

    sets = load_table(results.folder, "datasets")
    absent = results._csv("advice_data").drop_duplicates("dataset").set_index("dataset")["empty_share"]
    cells = results.cells
    cells = cells[cells["dataset"].isin(sets.loc[sets["family"] == "public", "dataset"])]
    # The length has a column of its own, and all patches of a set are alike.
    cells = cells.assign(
        label=cells["data_label"].str.replace(r", (patch|steps|augment) \w+", "", regex=True)
    )
    losses = sorted(cells["loss_label"].unique())
    head = ("images (foreground)", "steps", *losses, "an empty mask")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for label, own in cells.groupby("label", sort=True, observed=True):
        foreground = words.percent(own["foreground_true"].astype(float).mean(), 2)
        blank = words.number(float(absent[own["dataset"].iloc[0]]), 2)
        for steps, rows in own.groupby("recipe.steps", sort=True):
            shared = rows[rows.groupby("seed")["loss"].transform("nunique") == rows["loss"].nunique()]
            scored = [_scored_public(shared[shared["loss_label"] == name]) for name in losses]
            shown = (f"{label} ({foreground})", f"{int(steps):,}", *scored, f"0 / {blank} / 0 %")
            lines.append(f"| {' | '.join(shown)} |")
    return _block(lines)


def _scored_public(rows: pd.DataFrame) -> str:
    """Return Dice where the class is present with its interval, Dice of all images and false alarms."""
    if not len(rows):
        return "–"
    from lossbench.analysis.boards import score

    own = score(rows["dice@0.5"].to_numpy(float), "dice@0.5")
    every, alarms = rows[["dice_all@0.5", "false_alarms@0.5"]].astype(float).mean()
    collapsed = int((rows["collapse"].fillna("") != "").sum())
    present = f"{own['mean']:.2f} [{own['low']:.2f}, {own['high']:.2f}]"
    gone = f" ({collapsed} collapsed)" if collapsed else ""
    return f"{present} / {every:.2f} / {words.percent(alarms, 2)}{gone}"


# Of the images that hold the class, of all, of all pixels; the last two differ where images are empty.
TRIAL = ("dice@0.5", "dice_all@0.5", "dice_pooled@0.5")


def _trial(results: Results, _: str) -> str:
    """Return a row for each data set, head and length of ``results/trial``, a column for each loss."""
    from lossbench.store.store import Store
    from lossbench.tables.compact import compact

    records = list(Store(results.root / "results" / "trial").records())
    if not records:
        return _block(
            ["Nothing of it is kept yet: `lossbench sweep trial --results results/trial` trains it."]
        )
    cells = compact(records)["cells"]
    losses = list(dict.fromkeys(cells["loss_label"]))
    lines = ["| Dice: present / all / pooled | seeds | " + " | ".join(losses) + " |"]
    lines.append("|---" * (len(losses) + 2) + "|")
    for data, rows in cells.groupby("data_label", sort=True, observed=True):
        # Only seeds that every loss has: others would compare losses on different images.
        whole = rows.groupby("seed")["loss_label"].nunique() == len(losses)
        paired = rows[rows["seed"].map(whole)]
        means = paired.groupby("loss_label", observed=True)[list(TRIAL)].mean().reindex(losses)
        shown = ["/".join(f"{v:.2f}".removeprefix("0") for v in means.loc[loss]) for loss in losses]
        lines.append(f"| {data} | {whole.sum()} | " + " | ".join(shown) + " |")
    return _block(lines)


def _scored(rows: pd.DataFrame, loss: str) -> str:
    if loss not in rows.index:
        return "–"
    row = rows.loc[loss]
    mean, low, high = (100 * float(row[name]) for name in ("mean", "low", "high"))
    return (
        words.number(mean, 1)
        if words.missing(low)
        else f"{words.number(mean, 1)} [{words.number(low, 1)}, {words.number(high, 1)}]"
    )


def _figure(results: Results, name: str) -> str:
    path, caption = _drawn(results, name), _caption(results, name)
    return f"\n\n![{caption.partition('. ')[2].partition('. ')[0]}]({results.link(path)})\n\n"


def _caption(results: Results, name: str) -> str:
    return _drawn(results, name).with_suffix(".txt").read_text(encoding="utf-8").strip()


def _drawn(results: Results, name: str) -> Path:
    path = results.folder / "figures" / f"{name}.png"
    if not path.is_file():
        raise UserError(
            f"marker '{name}': {path} does not exist; `lossbench figures --results {results.folder}` draws it"
        )
    return path


SHOWN: dict[str, Callable[[Results, str], str]] = {
    "study": _study,
    "hours": _hours,
    "verdicts": _verdicts,
    "decided": _decided,
    "tally": _tally,
    "power": _power,
    "verdict": _verdict,
    "tests": _tests,
    "effect": _effect,
    "levels": _each_level,
    "lengths": _lengths,
    "sure": _sure,
    "mean": _mean,
    "share": _share,
    "public": _public,
    "trial": _trial,
    "published": _published,
    "figure": _figure,
    "caption": _caption,
}


def _of(results: Results, column: str, name: str) -> pd.DataFrame:
    found = results.verdicts[results.verdicts[column] == name]
    if not len(found):
        raise UserError(
            f"marker: no {column} '{name}' in the "
            f"verdicts{nearest(name, sorted(set(results.verdicts[column])))}"
        )
    return found


def _measured(row: dict[str, Any]) -> str:
    """Return effect and interval in words of their kind, with the unit: +8.5 points [+7.1, +9.9]."""
    kind = columns.form(row["estimand"])
    if words.missing(row["estimate"]):
        return "–"
    per = (
        "a decade"
        if "per tenfold" in row["estimand"]
        else "per unit"
        if "slope on" in row["estimand"]
        else ""
    )
    where = f" ({row['where']})" if isinstance(row.get("where"), str) else ""
    if not words.missing(row.get("agreement", float("nan"))):
        where = f" (tau {words.number(row['agreement'], 2)}, noise allows {words.number(row['ceiling'], 2)})"
    parts = [
        words.level(words.effect(row["estimate"], kind), row.get("null")),
        words.unit(kind),
        per,
        words.level(words.interval(row["low"], row["high"], kind), row.get("null")),
    ]
    return " ".join(filter(None, parts)) + where


def _size(value: float, kind: str) -> str:
    return "–" if words.missing(value) else words.effect(value, kind).lstrip("+")


def _count(value: float) -> str:
    return "–" if words.missing(value) else f"{value:.0f}"


def _block(lines: list[str]) -> str:
    # An empty line before and after, or Markdown would join a table with its neighbours.
    return "\n\n" + "\n".join(lines) + "\n\n"


def main(results: Path = Path("results/paper")) -> None:
    """Write the pages of the checkout one stands in, and say which changed."""
    changed = write(Path("."), results)
    print(
        "\n".join(f"written  {path}" for path in changed)
        or "nothing to write: the pages say what the tables say"
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
