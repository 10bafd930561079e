"""Loss cards: formula, source, parameters and what happens on empty images, read from the source files without importing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def cards(cells: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one card a loss of the cells, in the order of their families; sums name their terms."""
    found = []
    for row in cells.drop_duplicates("loss").sort_values(["family", "loss_label"])[["loss", "loss_label", "family"]].to_dict("records"):
        facts: list[tuple[str, str]] = [("spec", row["loss"])]
        try:
            facts += _facts(row["loss"])
        except UserError as error:  # a loss of a user's own file, or of a library that is not here
            facts.append(("note", f"not known here: {error}"))
        found.append({"label": row["loss_label"], "family": row["family"], "facts": facts})
    return found


def _facts(spec: str) -> list[tuple[str, str]]:
    from benchmark.registry import parse_loss

    terms = parse_loss(spec).terms
    facts = []
    for term in terms:
        prefix = f"{term.name}: " if len(terms) > 1 else ""
        if term.entry is None:
            facts.append(("term", f"{term.weight:g} × {term.library}:{term.name}"))
            continue
        meta = term.entry.meta
        if len(terms) > 1:
            facts.append(("term", f"{term.weight:g} × {term.name}"))
        facts += [(name, f"{prefix}{meta[key]}") for name, key in (("formula", "formula"), ("source", "cite"), ("cost", "cost")) if meta.get(key)]
        shown = {key: value for key, value in term.params.items() if key != "ignore_index"}
        if shown:
            facts.append(("parameters", prefix + ", ".join(f"{key} = {value!r}" for key, value in shown.items())))
        if meta.get("empty"):
            facts.append(("empty images", f"{prefix}{meta['empty']}"))
        if term.entry.needs:
            facts.append(("needs", prefix + ", ".join(term.entry.needs)))
    return facts
