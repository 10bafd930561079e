"""What the template shows, section by section: rows of ready words, taken from the tables and from nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmark.report import drawing, words
from benchmark.report.short import short

if TYPE_CHECKING:
    import pandas as pd

    from benchmark.analysis.answers import Answers
    from benchmark.figures import Drawn

HEADLINE = ("dice_gap", "size_ratio")
MARKS = {"supported": "✓", "contradicted": "✕", "equivalent": "≈", "inconclusive": "?", "not testable": "–"}
METRIC_NAMES = {
    "dice@0.5": "Dice at 0.5",
    "dice@val": "Dice at val. thr.",
    "iou@0.5": "IoU at 0.5",
    "nsd_1@0.5": "surface Dice (1) at 0.5",
    "hd95@0.5": "HD95 at 0.5",
    "log_size_ratio_hard@0.5": "region size at 0.5",
    "log_size_ratio_soft": "soft region size",
    "size_ratio_hard@0.5": "size, hard",
    "size_ratio_soft": "size, soft",
    "recall@0.5": "recall",
    "precision@0.5": "precision",
    "nll": "NLL",
    "ece": "ECE",
}


def gather(tables: Mapping[str, pd.DataFrame], answers: Answers, figures: list[Drawn], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything the template names."""
    cells = tables["cells"]
    derived = answers.tables
    shown = [_figure(item) for item in figures]
    labels = _labels(cells)
    return {
        "title": meta.get("title") or "Which segmentation loss, and why?",
        "experiment": meta.get("experiment") or "",
        "facts": _facts(cells, meta),
        "short": short(derived["leaderboard"], derived["effects"]),
        "claims": _claims(derived["verdicts"], answers),
        "claims_file": answers.claims.file,
        "claims_digest": answers.claims.digest,
        "counts": _counts(answers),
        "headline": [item for name in HEADLINE for item in shown if item["name"] == name],
        "others": [item for item in shown if item["name"] not in HEADLINE and not item["theory"]],
        "theory": [item for item in shown if item["theory"]],
        "boards": _boards(derived["leaderboard"]),
        "effects": _effects(_by_foreground(derived["effects"], derived["leaderboard"]), labels),
        "effect_columns": _filters(derived["effects"], labels),
        "unreachable": _unreachable(derived["effects"]),
        "pooled": _pooled(derived["pooled"]),
        "collapses": _collapses(derived["collapses"], labels),
        "missing": _missing(derived, cells, labels, meta),
        "cost": _cost(derived["cost"]),
        "origins": _plain_rows(tables.get("origins")),
        "recipes": _plain_rows(tables.get("recipes")),
        "light": drawing.family_colours(False),
        "dark": drawing.family_colours(True),
    }


def _facts(cells: pd.DataFrame, meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not len(cells):
        return [("cells", "0")]
    seeds = cells.groupby(["dataset", "recipe"], observed=True)["seed"].nunique()
    collapsed = int((cells["outcome"] == "collapsed").sum())
    facts = [
        ("cells", f"{len(cells)}" + (f" of {meta['planned']}" if meta.get("planned", len(cells)) != len(cells) else "")),
        ("blocks", str(cells["block"].nunique())),
        ("losses", str(cells["loss"].nunique())),
        ("data set variants", str(cells["dataset"].nunique())),
        ("seeds each", str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()}–{seeds.max()}"),
        ("collapsed", str(collapsed)),
        ("training", words.duration(float(cells["seconds"].astype(float).sum()))),
    ]
    return facts


def _counts(answers: Answers) -> list[tuple[str, str, int]]:
    found = [verdict.verdict for verdict in answers.verdicts]
    return [(name, mark, found.count(name)) for name, mark in MARKS.items() if name in found]


def _claims(table: pd.DataFrame, answers: Answers) -> list[dict[str, Any]]:
    rows = table.to_dict("records")
    claims = []
    for verdict in answers.verdicts:
        own = [_test(row) for row in rows if row["claim"] == verdict.claim.id]
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
                "tests": own,
            }
        )
    return claims


def _test(row: dict[str, Any]) -> dict[str, Any]:
    kind = words.kind_of(row["estimand"])
    return {
        "id": row["test"],
        "role": row["role"],
        "says": row["says"],
        "estimand": row["estimand"],
        "verdict": row["verdict"],
        "mark": MARKS[row["verdict"]],
        "effect": words.effect(row["estimate"], kind),
        "interval": "" if words.missing(row["estimate"]) else words.interval(row["low"], row["high"], kind),
        "unit": words.unit(kind) + (" a decade" if "change per" in row["estimand"] else ""),
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
    from benchmark import figures

    return {
        "name": item.name,
        "number": item.number,
        "title": item.title,
        "caption": item.caption,
        "svg": drawing.inline(item.svg, item.name, item.alt),
        "csv": drawing.data_link(item.data.to_csv(index=False, float_format="%.6g", lineterminator="\n")),
        "theory": figures.entries()[item.name].theory,
    }


def _boards(table: pd.DataFrame) -> list[dict[str, Any]]:
    boards = []
    several = table["recipe"].nunique() > 1
    present = [c for c in METRIC_NAMES if c in table and c != "dice@0.5"]
    for (dataset, recipe), part in table.groupby(["dataset", "recipe"], sort=False, observed=True):
        rows = part.sort_values("place").to_dict("records")
        boards.append(
            {
                "dataset": dataset,
                "recipe": recipe if several else "",
                "label": rows[0]["data_label"],
                "foreground": words.percent(rows[0]["foreground"], 2),
                "columns": [METRIC_NAMES[c] for c in present],
                "best": [row["loss_label"] for row in rows if row["best"]],
                "rows": [_board_row(row, present) for row in rows],
            }
        )
    return boards


def _board_row(row: dict[str, Any], present: list[str]) -> dict[str, Any]:
    return {
        "place": row["place"],
        "loss": row["loss"],
        "label": row["loss_label"],
        "family": row["family"],
        "best": bool(row["best"]),
        "mean": words.number(row["mean"]),
        "mean_raw": row["mean"],
        "interval": "one seed" if words.missing(row["low"]) else f"[{words.number(row['low'])}, {words.number(row['high'])}]",
        "n": row["n"],
        "collapsed": row["collapsed"],
        "others": [
            (words.number(row[c]) if c != "hd95@0.5" else words.number(row[c], 1), row[c], c == "dice@val" and row["best_val"]) for c in present
        ],
    }


def _effects(table: pd.DataFrame, labels: Mapping[tuple[str, str], str]) -> list[dict[str, Any]]:
    rows = []
    for row in table.to_dict("records"):
        kind = words.kind_of(row["metric"])
        rows.append(
            {
                "label": labels[row["dataset"], row["recipe"]],
                "metric": METRIC_NAMES.get(row["metric"], row["metric"]),
                "loss": row["loss_label"],
                "family": row["family"],
                **_numbers(row, kind),
                "new": "",
            }
        )
    return rows


def _by_foreground(effects: pd.DataFrame, board: pd.DataFrame) -> pd.DataFrame:
    """Return the effects from the rarest foreground to the commonest, metrics and losses in their own order."""
    place = {key: i for i, key in enumerate(dict.fromkeys(zip(board["dataset"], board["recipe"], strict=True)))}
    rank = [place.get(key, len(place)) for key in zip(effects["dataset"], effects["recipe"], strict=True)]
    return effects.assign(rank=rank).sort_values("rank", kind="stable").drop(columns="rank")


def _unreachable(effects: pd.DataFrame) -> str:
    """Return the sentence that says where so few blocks cannot reach .05, whatever they show."""
    few = effects[effects["smallest_p"] >= 0.05]
    if not len(few):
        return ""
    blocks, reach = few["n_blocks"].max(), few["smallest_p"].min()
    return (
        f"With {blocks:.0f} blocks or fewer a data set the smallest possible p is {words.p_value(reach)}: here p cannot fall below .05, whatever "
        "the cells show; read the intervals, or train more seeds."
    )


def _pooled(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for row in table.to_dict("records"):
        kind = words.kind_of(row["metric"])
        new = "one independent data set" if row["n_units"] == 1 else "–"
        if row["n_units"] > 1:
            new = f"{words.effect(row['new_estimate'], kind)} {words.interval(row['new_low'], row['new_high'], kind)}"
        rows.append(
            {
                "metric": METRIC_NAMES.get(row["metric"], row["metric"]),
                "loss": row["loss_label"],
                "family": row["family"],
                "recipe": row["recipe"],
                **_numbers(row, kind),
                "datasets": "–" if words.missing(row["n_datasets"]) else f"{row['n_datasets']:.0f}",
                "units": "–" if words.missing(row["n_units"]) else f"{row['n_units']:.0f}",
                "new": new,
                "new_boot": words.interval(row["new_boot_low"], row["new_boot_high"], kind) if row["n_units"] > 1 else "–",
            }
        )
    return rows


def _numbers(row: dict[str, Any], kind: str) -> dict[str, Any]:
    resolved = not words.missing(row["low"]) and (row["low"] > 0 or row["high"] < 0)
    return {
        "effect": words.effect(row["estimate"], kind),
        "effect_raw": row["estimate"],
        "interval": "–" if words.missing(row["estimate"]) else words.interval(row["low"], row["high"], kind),
        "boot": words.interval(row["boot_low"], row["boot_high"], kind) if not words.missing(row["boot_low"]) else "–",
        "unit": words.unit(kind),
        "resolved": resolved,
        "p": words.p_value(row["p"]),
        "p_raw": row["p"],
        "p_holm": words.p_value(row["p_holm"]),
        "p_holm_raw": row["p_holm"],
        "ahead": words.number(row["superiority"], 2),
        "ahead_raw": row["superiority"],
        "blocks": "–" if words.missing(row["n_blocks"]) else f"{row['n_blocks']:.0f}",
        "mde": "–" if words.missing(row["mde"]) else words.effect(row["mde"], kind).lstrip("+"),
        "mde_raw": row["mde"],
        "note": row["note"] if isinstance(row["note"], str) else "",
    }


def _filters(table: pd.DataFrame, labels: Mapping[tuple[str, str], str]) -> list[tuple[str, list[str]]]:
    datasets = list(dict.fromkeys(labels[d, r] for d, r in zip(table["dataset"], table["recipe"], strict=True)))
    metrics = [METRIC_NAMES.get(m, m) for m in dict.fromkeys(table["metric"])]
    return [("data set", datasets), ("metric", metrics), ("loss", sorted(dict.fromkeys(table["loss_label"])))]


def _collapses(table: pd.DataFrame, labels: Mapping[tuple[str, str], str]) -> list[dict[str, Any]]:
    return [
        {
            "label": labels[row["dataset"], row["recipe"]],
            "loss": row["loss_label"],
            "family": row["family"],
            "collapsed": f"{row['collapsed']} of {row['n']}",
            "share": row["share"],
            "kinds": ", ".join(f"{row[kind]} {word}" for kind, word in KINDS.items() if row[kind]),
            "seeds": row["seeds"],
        }
        for row in table.to_dict("records")
    ]


KINDS = {"background": "all background", "foreground": "all foreground", "not_finite": "not finite"}


def _missing(derived: Mapping[str, pd.DataFrame], cells: pd.DataFrame, labels: Mapping[tuple[str, str], str], meta: Mapping[str, Any]) -> list[str]:
    """Return sentences: data sets left out, incomplete blocks, refused pairs, tests that cannot be run, figures not
    drawn.
    """
    says = [str(sentence) for sentence in meta.get("skipped", ())]
    planned = meta.get("planned")
    if planned is not None and planned > len(cells):
        says.append(f"{planned - len(cells)} of {planned} planned cells have no record; `{meta.get('command', 'lossbench sweep')}` trains them")
    for row in derived["missing"].to_dict("records"):
        where = labels[row["dataset"], row["recipe"]]
        seeds = f"seed{'s' * (row['missing'] > 1)} {row['seeds']}"
        says.append(
            f"{row['loss_label']} on {where}: {row['missing']} of {row['of']} blocks are missing ({seeds}), so they are left out of its pairs"
        )
    refused = derived["effects"]["note"].dropna()
    says += sorted({note for note in refused if "not paired" in note})
    tests = derived["verdicts"]
    for row in tests[tests["verdict"] == "not testable"].to_dict("records") if len(tests) else []:
        says.append(f"{row['test']} is not testable: {row['why'][0].lower() + row['why'][1:]}")
    says += [f"figure {name} is not drawn: it {reason}" for name, reason in meta.get("not_drawn", {}).items()]
    return says


def _cost(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "label": row["data_label"],
            "recipe": row["recipe"],
            "cells": row["cells"],
            "median": words.duration(row["seconds_median"]),
            "median_raw": row["seconds_median"],
            "total": words.duration(row["seconds_total"]),
            "total_raw": row["seconds_total"],
        }
        for row in table.to_dict("records")
    ]


def _labels(cells: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return how a data set variant is called; its recipe is named only where one data set was run with several."""
    facts = cells.drop_duplicates(["dataset", "recipe"])
    doubled = facts["data_label"].duplicated(keep=False)
    return {
        (d, r): f"{label} · {r}" if two else label
        for d, r, label, two in zip(facts["dataset"], facts["recipe"], facts["data_label"], doubled, strict=True)
    }


def _plain_rows(table: pd.DataFrame | None) -> dict[str, Any]:
    if table is None or not len(table):
        return {"columns": [], "rows": []}
    columns = list(table.columns)
    rows = [["" if words.missing(v) else str(v) for v in row] for row in table.itertuples(index=False, name=None)]
    return {"columns": columns, "rows": rows}
