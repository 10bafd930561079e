"""What the template shows, section by section: rows of ready words, taken from the tables and from nowhere
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lossbench.analysis import claims as estimands
from lossbench.analysis.seeds import rarest_first
from lossbench.base import columns, words
from lossbench.report import (
    advice,
    boards,
    drawing,
    effects,
    loss_cards,
    pairs,
    runs,
    singles,
    summary,
)
from lossbench.tables.compact import NOTHING as NO_NOTE
from lossbench.tables.compact import noted as noted_tables
from lossbench.tables.files import csv_text

if TYPE_CHECKING:
    import pandas as pd

    from lossbench.analysis.answers import Answers
    from lossbench.figures.drawing import Drawn

NOTHING = noted_tables(NO_NOTE)

UNDECIDED = ("inconclusive", "not testable")

# The one figure that carries the answer: the first of these that can be drawn.
HERO = ("specification_curve", "leaderboard")
HERO_OF_OWN = ("leaderboard",)  # of the user's own data

# The evidence, folded: id, title, what it holds, its templates, and the entries that must not all be empty;
# of one id the first that has content.
GROUPS = (
    ("seen", "Figures", "every result as a drawing", ("figures.html.j2",), ("others",)),
    (
        "compared",
        "Comparisons",
        "leaderboards, loss against loss, how stable rankings are, paired effects",
        ("boards.html.j2", "pairs.html.j2", "stability.html.j2", "effects.html.j2"),
        ("boards", "pairs", "effects"),
    ),
    (
        "checked",
        "Checks",
        "what was learnt, questions of their own, other settings, collapsed trainings",
        ("checks.html.j2",),
        ("learnt", "parts", "collapses", "facts"),
    ),
    ("catalogue", "Losses and data", "formulas, papers, images, theory", ("catalogue.html.j2",), ("cards",)),
    # The same without a card of any data set.
    ("catalogue", "Losses", "formulas, papers, theory", ("catalogue.html.j2",), ("losses",)),
    (
        "records",
        "Records",
        "single trainings, what is missing, where it came from",
        ("records.html.j2",),
        ("facts",),
    ),
)

# Beside every verdict, so that it does not rest on colour alone.
MARKS = {"supported": "✓", "contradicted": "✕", "equivalent": "≈", "inconclusive": "?", "not testable": "–"}

NO_MARK = {"exploratory": ""}


@dataclass(frozen=True)
class About:
    """What the page says that no table holds; all of it may be missing."""

    title: str = ""
    experiment: str = ""  # its name
    skipped: tuple[str, ...] = ()  # sentences about data sets that were left out
    planned: int | None = None  # cells of the experiment
    verified: str = ""  # what `lossbench verify` says
    cards: tuple[dict[str, Any], ...] = ()  # of the data
    errors: tuple[dict[str, Any], ...] = ()  # pictures of what the best and the worst loss mark
    judged: bool = True  # whether the claims are judged by these cells
    changes: tuple[str, ...] = ()  # sentences about what differs from the report before
    not_drawn: Mapping[str, str] = field(default_factory=dict)  # name of a figure -> why


def gather(
    tables: Mapping[str, pd.DataFrame], answers: Answers, figures: list[Drawn], about: About
) -> dict[str, Any]:
    """Return everything the template names."""
    cells = tables["cells"]
    derived = answers.tables
    own = summary.is_own(tables)
    heroes = HERO_OF_OWN if own else HERO
    shown = _figures(figures)
    hero = next((item for name in heroes for item in shown if item["name"] == name), None)
    # A link to single cells names data set and loss by their numbers, which keeps the page short.
    labels = _labels(cells)
    ids = singles.variants(cells, labels)
    claims = _claims(derived["verdicts"], answers) if about.judged else []
    # An older folder has none of these tables; its page then says less.
    noted = {name: tables.get(name, NOTHING[name]) for name in NOTHING}
    order = list(noted["parts"]["part"])
    places = rarest_first(cells)
    # A stable sort by the data set alone leaves all else as it is.
    ordered = {
        name: derived[name].sort_values("dataset", key=lambda own: own.map(places), kind="stable")
        for name in ("effects", "learnt", "speeds", "cost", "advice_data")
    }
    shown_effects, left_out = effects.fitting(ordered["effects"])
    found = {
        "title": about.title or "Which segmentation loss, and why?",
        "experiment": about.experiment,
        "facts": _facts(cells, about.planned),
        "opening": summary.opening(tables, answers, about),
        "hero": hero,
        "claims": [claim for claim in claims if claim["tested"]],
        "elsewhere": _elsewhere([claim for claim in claims if not claim["tested"]]),
        "claims_file": answers.claims.file,
        "claims_digest": answers.claims.digest,
        "counts": _counts(claims),
        "others": [item for item in shown if item is not hero and not item["theory"]],
        "theory": [item for item in shown if item["theory"]],
        "aid": advice.aid(derived, there=not own),
        "shortfalls": advice.shortfalls(derived),
        "regrets": advice.regrets(derived),
        "likeness": advice.likeness(ordered["advice_data"]),
        "worth": list(derived["advice_worth"]["says"]),
        "boards": boards.boards(derived["leaderboard"], cells),
        "board_filters": boards.filters(derived["leaderboard"]),
        "firmness": boards.firmness(derived["profiles"], derived["stability"], order),
        "effects": effects.effects(shown_effects, labels),
        "effect_columns": effects.filters(shown_effects, labels),
        "effects_left_out": left_out,
        "unreachable": effects.unreachable(derived["effects"]),
        "pooled": effects.pooled(derived["pooled"], effects.recipe_names(cells)),
        "pairs": pairs.pairs(derived["pairs"]),
        "pair_metrics": [columns.title(metric) for metric in dict.fromkeys(derived["pairs"]["metric"])],
        "parts": effects.sections(noted["parts"], derived["part_effects"], labels, ids),
        "sensitivity": advice.sensitivity(derived["sensitivity"]),
        "collapses": runs.collapses(derived["collapses"], labels),
        "learnt": runs.learnt(ordered["learnt"], derived["lengths"]),
        "speeds": [row["says"] for row in words.plainest_first(ordered["speeds"].to_dict("records"))],
        "missing": _missing(
            derived, cells, labels, about, {claim["id"] for claim in claims if claim["tested"]}
        ),
        "absent": _absent(tables),
        "changes": about.changes,
        "cards": about.cards,
        "errors": about.errors,
        "losses": loss_cards.cards(cells, noted["losses"], tables.get("spellings")),
        "card": {loss: f"loss-{number}" for number, loss in enumerate(loss_cards.order(cells)["loss"], 1)},
        "data_of": _data_cards(cells, about.cards),
        "verified": about.verified,
        "cost": runs.cost(ordered["cost"]),
        "origins": _plain_rows(tables.get("origins")),
        "recipes": _plain_rows(tables.get("recipes")),
        "single": singles.data(cells, tables.get("curves"), ids),
        "place": lambda key, loss: f"{ids['variants'][key]},{ids['losses'][loss]}",
        "light": drawing.family_colours(False),
        "dark": drawing.family_colours(True),
    }
    groups: dict[str, dict[str, Any]] = {}
    for name, title, holds, files, needs in GROUPS:
        # A section without content leaves its group out.
        if any(found[key] for key in needs):
            groups.setdefault(name, {"id": name, "title": title, "about": holds, "files": files})
    return {**found, "groups": list(groups.values())}


def _facts(cells: pd.DataFrame, planned: int | None) -> list[tuple[str, str]]:
    if not len(cells):
        return [("cells", "0")]
    seeds = cells.groupby(["dataset", "recipe"], observed=True)["seed"].nunique()
    of = f" of {planned:,}" if planned not in (None, len(cells)) else ""
    return [
        ("cells", f"{len(cells):,}{of}"),
        ("blocks", f"{cells['block'].nunique():,}"),
        ("losses", str(cells["loss"].nunique())),
        ("data set variants", str(cells["dataset"].nunique())),
        ("seeds each", str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()}–{seeds.max()}"),
        ("collapsed", str(int((cells["outcome"] == "collapsed").sum()))),
        # Not wall time, which says what else ran on the machine.
        ("compute time", words.duration(float(cells["cpu_seconds"].astype(float).sum()))),
    ]


def _counts(claims: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    verdicts = [claim["verdict"] for claim in claims if claim["tested"]]
    return [(name, mark, verdicts.count(name)) for name, mark in MARKS.items() if name in verdicts]


def _elsewhere(claims: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the claims that no cell here speaks of, in one sentence with the commands that train what they
    need.
    """
    if not claims:
        return None
    experiments = dict.fromkeys(claim["experiment"] for claim in claims)
    commands = " and ".join(f"`lossbench sweep {name}`" for name in experiments)
    need = "claims need" if len(claims) > 1 else "claim needs"
    return {"says": f"{len(claims)} {need} other cells: {commands}", "claims": claims}


def _claims(table: pd.DataFrame, answers: Answers) -> list[dict[str, Any]]:
    # A claim without any cell here is one line, not a table of dashes.
    tests = table.to_dict("records")
    levels = answers.tables["levels"]
    by_test = {name: own.to_dict("records") for name, own in levels.groupby("test") if len(own) > 1}
    claims = []
    for verdict in answers.verdicts:
        per = {test.id: estimands.per(test) for test in verdict.claim.tests}
        own = [
            _test(row, per[row["test"]], by_test.get(row["test"], []))
            for row in tests
            if row["claim"] == verdict.claim.id
        ]
        claims.append(
            {
                "id": verdict.claim.id,
                "title": verdict.claim.title,
                "statement": verdict.claim.statement,
                "source": verdict.claim.source,
                "papers": verdict.claim.papers,
                "prediction": verdict.claim.prediction,
                "seen": verdict.claim.seen,
                "note": verdict.claim.note,
                "family": verdict.claim.family,
                "verdict": verdict.verdict,
                "mark": MARKS[verdict.verdict],
                "experiment": verdict.claim.experiment,
                # A claim without one number here belongs to another experiment, and is no open question of
                # this one.
                "tested": any(test["effect"] != "–" for test in own),
                "tests": own,
                "decided": _deciding(own, verdict.verdict),
                "open": _open(own),
                "mixed": _mixed(own),
            }
        )
    return claims


def _mixed(tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tests that decide about a claim where they do not all say the same; else none."""
    primary = [test for test in tests if test["adjusted"]]
    return primary if len({test["verdict"] for test in primary}) > 1 else []


def _open(tests: list[dict[str, Any]]) -> str:
    """Return what stands in the one row of a claim that cannot be tested yet."""
    primary = [test for test in tests if test["adjusted"]]
    done = [test for test in primary if test["verdict"] != "not testable"]
    return f"{len(done)} of {len(primary)} tests decided" if done else "needs more cells"


def _deciding(tests: list[dict[str, Any]], verdict: str) -> dict[str, Any] | None:
    """Return the test that a claim's one row shows: of the primary ones with the claim's own verdict the
    surest, or the first where nothing was decided, since chance chooses the surest of those.
    """
    # An exploratory test has no verdict, so it cannot stand for the claim where a primary one can.
    primary = [test for test in tests if test["adjusted"] and test["effect"] != "–"]
    own = [test for test in primary if test["verdict"] == verdict] or primary or tests
    if verdict in UNDECIDED:
        return own[0] if own else None
    return min(own, key=lambda test: (words.missing(test["p_raw"]), test["p_raw"])) if own else None


def _test(row: dict[str, Any], per: str, levels: list[dict[str, Any]]) -> dict[str, Any]:
    kind = columns.form(row["estimand"])
    # A ratio is drawn and written around one.
    ratio = row["null"] == 1
    return {
        "id": row["test"],
        "role": row["role"],
        "says": row["says"],
        "estimand": row["estimand"],
        "verdict": row["verdict"],
        "mark": {**MARKS, **NO_MARK}[row["verdict"]],
        "effect": words.level(words.effect(row["estimate"], kind), row["null"]),
        "interval": ""
        if words.missing(row["estimate"])
        else words.level(words.interval(row["low"], row["high"], kind), row["null"]),
        "unit": f"{words.unit(kind)} {per}".strip(),
        "glyph": drawing.glyph(row["estimate"], row["low"], row["high"], row["margin"], 1 if ratio else 0),
        # Where no outcome could decide, a p would only look like one.
        "p": "–" if row["verdict"] == "not testable" else words.p_value(row["p_adjusted"]),
        "p_raw": row["p_adjusted"],
        "adjusted": row["role"] == "primary",
        "seeds": "–" if words.missing(row["n_seeds"]) else f"{row['n_seeds']:.0f}",
        "mde": "–" if words.missing(row["mde"]) else words.effect(row["mde"], kind).lstrip("+"),
        "margin": words.effect(row["margin"], kind).lstrip("+"),
        "why": row["why"],
        "incomplete": row["incomplete"],
        "where": row["where"],
        "levels": [
            f"{level['level']} {words.level(words.effect(level['estimate'], kind), row['null'])}"
            for level in levels
        ],
        "new": ""
        if words.missing(row["predict_low"])
        else words.interval(row["predict_low"], row["predict_high"], kind),
    }


def _figures(figures: list[Drawn]) -> list[dict[str, Any]]:
    """Return what the page shows of each figure, under the number that its file and the documents have."""
    from lossbench.figures.drawing import entries

    known = entries()
    return [_figure(item, known[item.name].theory) for item in figures]


def _data_cards(cells: pd.DataFrame, cards: tuple[dict[str, Any], ...]) -> dict[str, str]:
    """Return label of a data set variant -> id of its card, where it has one."""
    ids = {card["spec"]: f"data-{number}" for number, card in enumerate(cards, 1)}
    known = cells.drop_duplicates("data_label")[["data_label", "dataset"]].itertuples(index=False, name=None)
    return {label: ids[dataset] for label, dataset in known if dataset in ids}


def _figure(item: Drawn, theory: bool) -> dict[str, Any]:
    return {
        "name": item.name,
        "number": item.number,
        "title": item.title,
        "caption": item.caption,
        "svg": drawing.inline(item.svg, item.name, item.alt),
        "csv": drawing.data_link(csv_text(item.data)),
        "theory": theory,
    }


def _missing(
    derived: Mapping[str, pd.DataFrame],
    cells: pd.DataFrame,
    labels: Mapping[tuple[str, str], str],
    about: About,
    tested: set[str],
) -> list[str]:
    """Return sentences: data sets left out, incomplete blocks, refused pairs, tests that cannot be run (of
    the claims that are ``tested`` here), figures not drawn.
    """
    says = list(about.skipped)
    # More cells than are planned are no gap: a folder may hold what an earlier experiment has trained.
    if about.planned is not None and about.planned > len(cells):
        absent = f"{about.planned - len(cells):,} of {about.planned:,} planned cells have no record"
        says.append(f"{absent}; `lossbench sweep {about.experiment}` trains them")
    # Many losses of a part miss the same seeds, which is one thing to say.
    for (dataset, recipe, seeds), own in derived["missing"].groupby(
        ["dataset", "recipe", "seeds"], sort=False
    ):
        named = ", ".join(f"“{label}”" for label in own["loss_label"])
        count, of = own["missing"].iloc[0], own["of"].iloc[0]
        trained = f"{count} of {of} seeds ({seeds}) {'are' if count > 1 else 'is'} not trained with {named}"
        says.append(
            f"{labels[dataset, recipe]}: {trained}; pairs of losses leave {'them' if count > 1 else 'it'} out"
        )
    # Pairs whose certificates differ are refused where pairs are made; here it is said.
    notes = [note for name in ("effects", "part_effects") for note in derived[name]["note"].dropna()]
    says += sorted({note for note in notes if "not paired" in note})
    says += _not_testable(derived["verdicts"], tested)
    return says + [f"figure {name} is not drawn: it {why}" for name, why in about.not_drawn.items()]


def _absent(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return the planned data sets on which nothing was trained, so that a search for one says so."""
    planned = tables.get("datasets")
    if planned is None:
        return []
    return list(
        dict.fromkeys(planned.loc[~planned["dataset"].isin(tables["cells"]["dataset"]), "dataset_name"])
    )


def _not_testable(tests: pd.DataFrame, tested: set[str]) -> list[str]:
    """Return one sentence a reason with the tests that it stops."""
    if not len(tests):
        return []
    stopped = tests[(tests["verdict"] == "not testable") & tests["claim"].isin(tested)]
    # A part that was not trained stops many tests at once; it is said once.
    reasons: dict[str, list[str]] = {}
    for why, test in zip(stopped["why"], stopped["test"], strict=True):
        reasons.setdefault(why[0].lower() + why[1:], []).append(test)
    return [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not testable: {why}"
        for why, names in reasons.items()
    ]


def _labels(cells: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return how a data set variant is called; its recipe is named only where one data set was run with
    several.
    """
    # Recipes are named by hex digits, which help nobody where there is only one.
    facts = cells.drop_duplicates(["dataset", "recipe"])
    doubled = facts["data_label"].duplicated(keep=False)
    names = facts["data_label"].where(~doubled, facts["data_label"] + " · " + facts["recipe"])
    return dict(zip(zip(facts["dataset"], facts["recipe"], strict=True), names, strict=True))


def _plain_rows(table: pd.DataFrame | None) -> dict[str, Any]:
    """Return a table as text, as it is; for those that only a few readers unfold."""
    if table is None:
        return {"columns": [], "rows": []}
    rows = [
        ["" if words.missing(value) else str(value) for value in row]
        for row in table.itertuples(index=False, name=None)
    ]
    return {"columns": list(table.columns), "rows": rows}
