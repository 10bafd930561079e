"""What the template shows, section by section: rows of ready words, taken from the tables and from nowhere
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lossbench.analysis import claims as estimands
from lossbench.base import columns
from lossbench.report import drawing, evidence, loss_cards, rows, singles, summary, words
from lossbench.tables.compact import NOTHING as NO_NOTE
from lossbench.tables.compact import noted as noted_tables

if TYPE_CHECKING:
    import pandas as pd

    from lossbench.analysis.answers import Answers
    from lossbench.figures.drawing import Drawn

NOTHING = noted_tables(NO_NOTE)  # tables for an older folder, whose note says nothing of parts and losses

HEADLINE = ("dice_gap", "size_ratio")

MARKS = {"supported": "✓", "contradicted": "✕", "equivalent": "≈", "inconclusive": "?", "not testable": "–"}


@dataclass(frozen=True)
class About:
    """What the page says that no table holds; all of it may be missing."""

    title: str = ""
    experiment: str = ""  # its name
    skipped: tuple[str, ...] = ()  # sentences about data sets that were left out
    planned: int | None = None  # cells of the experiment
    verified: str = ""  # what `lossbench verify` says
    cards: tuple[dict[str, Any], ...] = ()  # of the data
    changes: tuple[str, ...] = ()  # sentences about what differs from the report before
    not_drawn: Mapping[str, str] = field(default_factory=dict)  # name of a figure -> why


def gather(
    tables: Mapping[str, pd.DataFrame], answers: Answers, figures: list[Drawn], about: About
) -> dict[str, Any]:
    """Return everything the template names."""
    cells = tables["cells"]
    derived = answers.tables
    shown = [_figure(item) for item in figures]
    labels = _labels(cells)
    ids = singles.variants(cells, labels)
    claims = _claims(derived["verdicts"], answers)
    noted = {name: tables.get(name, NOTHING[name]) for name in NOTHING}
    order = list(noted["parts"]["part"])
    shown_effects, left_out = rows.fitting(rows.by_foreground(derived["effects"], derived["leaderboard"]))
    return {
        "title": about.title or "Which segmentation loss, and why?",
        "experiment": about.experiment,
        "facts": _facts(cells, about.planned),
        "short": summary.short(derived["leaderboard"], derived["effects"]),
        "claims": [claim for claim in claims if claim["tested"]],
        "elsewhere": _elsewhere([claim for claim in claims if not claim["tested"]]),
        "claims_file": answers.claims.file,
        "claims_digest": answers.claims.digest,
        "counts": _counts(claims),
        "headline": [item for name in HEADLINE for item in shown if item["name"] == name],
        "others": [item for item in shown if item["name"] not in HEADLINE and not item["theory"]],
        "theory": [item for item in shown if item["theory"]],
        "aid": evidence.aid(derived),
        "likeness": evidence.likeness(derived["advice_data"]),
        "boards": rows.boards(derived["leaderboard"]),
        "board_filters": rows.board_filters(derived["leaderboard"]),
        "firmness": evidence.firmness(derived["profiles"], derived["stability"], order),
        "effects": rows.effects(shown_effects, labels),
        "effect_columns": rows.filters(shown_effects, labels),
        "effects_left_out": left_out,
        "unreachable": rows.unreachable(derived["effects"]),
        "pooled": rows.pooled(derived["pooled"]),
        "parts": evidence.part_sections(noted["parts"], derived["part_effects"], labels, ids),
        "sensitivity": evidence.sensitivity(derived["sensitivity"]),
        "collapses": rows.collapses(derived["collapses"], labels),
        "missing": _missing(
            derived, cells, labels, about, {claim["id"] for claim in claims if not claim["tested"]}
        ),
        "changes": about.changes,
        "cards": about.cards,
        "losses": loss_cards.cards(cells, noted["losses"]),
        "verified": about.verified,
        "cost": rows.cost(derived["cost"]),
        "origins": _plain_rows(tables.get("origins")),
        "recipes": _plain_rows(tables.get("recipes")),
        "single": singles.data(cells, tables.get("curves"), ids),
        "place": lambda key, loss: f"{ids['variants'][key]},{ids['losses'][loss]}",
        "light": drawing.family_colours(False),
        "dark": drawing.family_colours(True),
    }


def _facts(cells: pd.DataFrame, planned: int | None) -> list[tuple[str, str]]:
    if not len(cells):
        return [("cells", "0")]
    seeds = cells.groupby(["dataset", "recipe"], observed=True)["seed"].nunique()
    of = f" of {planned}" if planned not in (None, len(cells)) else ""
    return [
        ("cells", f"{len(cells)}{of}"),
        ("blocks", str(cells["block"].nunique())),
        ("losses", str(cells["loss"].nunique())),
        ("data set variants", str(cells["dataset"].nunique())),
        ("seeds each", str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()}–{seeds.max()}"),
        ("collapsed", str(int((cells["outcome"] == "collapsed").sum()))),
        # Not wall time, which says what else ran on the machine.
        ("processor time", words.duration(float(cells["cpu_seconds"].astype(float).sum()))),
    ]


def _counts(claims: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    found = [claim["verdict"] for claim in claims if claim["tested"]]
    return [(name, mark, found.count(name)) for name, mark in MARKS.items() if name in found]


def _elsewhere(claims: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the claims that no cell here speaks of, in one sentence with the commands that train what they
    need.
    """
    if not claims:
        return None
    commands = " and ".join(
        f"`lossbench sweep {name}`" for name in dict.fromkeys(claim["experiment"] for claim in claims)
    )
    need = "claims need" if len(claims) > 1 else "claim needs"
    return {"says": f"{len(claims)} {need} other cells: {commands}", "claims": claims}


def _claims(table: pd.DataFrame, answers: Answers) -> list[dict[str, Any]]:
    tests = table.to_dict("records")
    claims = []
    for verdict in answers.verdicts:
        per = {test.id: estimands.per(test) for test in verdict.claim.tests}
        own = [_test(row, per[row["test"]]) for row in tests if row["claim"] == verdict.claim.id]
        claims.append(
            {
                "id": verdict.claim.id,
                "title": verdict.claim.title,
                "statement": verdict.claim.statement,
                "source": verdict.claim.source,
                "note": verdict.claim.note,
                "family": verdict.claim.family,
                "verdict": verdict.verdict,
                "mark": MARKS[verdict.verdict],
                "experiment": verdict.claim.experiment,
                "tested": any(test["effect"] != "–" for test in own),
                "tests": own,
            }
        )
    return claims


def _test(row: dict[str, Any], per: str) -> dict[str, Any]:
    kind = columns.form(row["estimand"])
    return {
        "id": row["test"],
        "role": row["role"],
        "says": row["says"],
        "estimand": row["estimand"],
        "verdict": row["verdict"],
        "mark": MARKS[row["verdict"]],
        "effect": words.effect(row["estimate"], kind),
        "interval": "" if words.missing(row["estimate"]) else words.interval(row["low"], row["high"], kind),
        "unit": f"{words.unit(kind)} {per}".strip(),
        "glyph": drawing.glyph(row["estimate"], row["low"], row["high"], row["margin"]),
        "p": words.p_value(row["p_adjusted"]),
        "adjusted": row["role"] == "primary",
        "blocks": "–" if words.missing(row["n_blocks"]) else f"{row['n_blocks']:.0f}",
        "mde": "–" if words.missing(row["mde"]) else words.effect(row["mde"], kind).lstrip("+"),
        "margin": words.effect(row["margin"], kind).lstrip("+"),
        "why": row["why"],
        "incomplete": row["incomplete"],
        "where": row["where"],
    }


def _figure(item: Drawn) -> dict[str, Any]:
    from lossbench.figures.drawing import entries

    return {
        "name": item.name,
        "number": item.number,
        "title": item.title,
        "caption": item.caption,
        "svg": drawing.inline(item.svg, item.name, item.alt),
        "csv": drawing.data_link(item.data.to_csv(index=False, float_format="%.6g", lineterminator="\n")),
        "theory": entries()[item.name].theory,
    }


def _missing(
    derived: Mapping[str, pd.DataFrame],
    cells: pd.DataFrame,
    labels: Mapping[tuple[str, str], str],
    about: About,
    elsewhere: set[str],
) -> list[str]:
    """Return sentences: data sets left out, incomplete blocks, refused pairs, tests that cannot be run (but
    not of the claims that are told ``elsewhere``), figures not drawn.
    """
    import pandas as pd

    says = list(about.skipped)
    if about.planned is not None and about.planned > len(cells):
        absent = f"{about.planned - len(cells)} of {about.planned} planned cells have no record"
        says.append(f"{absent}; `lossbench sweep {about.experiment}` trains them")
    for row in derived["missing"].to_dict("records"):
        where = labels[row["dataset"], row["recipe"]]
        seeds = f"seed{'s' * (row['missing'] > 1)} {row['seeds']}"
        says.append(
            f"{row['loss_label']} on {where}: {row['missing']} of {row['of']} blocks are missing "
            f"({seeds}), so they are left out of its pairs"
        )
    refused = pd.concat([derived[name]["note"] for name in ("effects", "part_effects")]).dropna()
    says += sorted({note for note in refused if "not paired" in note})
    tests = derived["verdicts"]
    tests = tests[~tests["claim"].isin(elsewhere)] if len(tests) else tests
    reasons: dict[str, list[str]] = {}
    for row in tests[tests["verdict"] == "not testable"].to_dict("records") if len(tests) else []:
        reasons.setdefault(row["why"][0].lower() + row["why"][1:], []).append(row["test"])
    says += [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not testable: {why}"
        for why, names in reasons.items()
    ]
    says += [f"figure {name} is not drawn: it {reason}" for name, reason in about.not_drawn.items()]
    return says


def _labels(cells: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return how a data set variant is called; its recipe is named only where one data set was run with
    several.
    """
    facts = cells.drop_duplicates(["dataset", "recipe"])
    doubled = facts["data_label"].duplicated(keep=False)
    return {
        (d, r): f"{label} · {r}" if two else label
        for d, r, label, two in zip(
            facts["dataset"], facts["recipe"], facts["data_label"], doubled, strict=True
        )
    }


def _plain_rows(table: pd.DataFrame | None) -> dict[str, Any]:
    if table is None or not len(table):
        return {"columns": [], "rows": []}
    columns = list(table.columns)
    told = [
        ["" if words.missing(v) else str(v) for v in row] for row in table.itertuples(index=False, name=None)
    ]
    return {"columns": columns, "rows": told}
