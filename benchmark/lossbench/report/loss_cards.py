"""Loss cards: formula, source, parameters and what happens on empty images, as the sweep noted them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Fact = tuple[str, str]


def cards(cells: pd.DataFrame, losses: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one card a loss of the cells, in the order of their families; sums name their terms."""
    # A loss that is in the cells has a card, also where the note is older than its facts.
    order = cells.drop_duplicates("loss").sort_values(["family", "loss_label"])
    return [
        {"label": label, "family": family, "facts": _facts(loss, losses[losses["loss"] == loss])}
        for loss, label, family in order[["loss", "loss_label", "family"]].itertuples(index=False, name=None)
    ]


def _facts(loss: str, table: pd.DataFrame) -> list[Fact]:
    terms = table.to_dict("records")
    return [("spec", loss), *(fact for term in terms for fact in _term(term, len(terms) > 1))]


def _term(term: dict[str, Any], in_sum: bool) -> list[Fact]:
    """Return what is known of one summand, each fact under its name; in a sum every fact names its
    summand.
    """
    # What the data decide is no parameter of the loss to a reader.
    params = {key: value for key, value in json.loads(term["params"]).items() if key != "ignore_index"}
    facts = {
        "what it does": term["doc"].replace("``", ""),
        "formula": term["formula"],
        "source": term["cite"],
        "cost": term["cost"],
        "parameters": ", ".join(f"{key} = {value!r}" for key, value in params.items()),
        "empty images": term["empty"],
        "needs": ", ".join(json.loads(term["needs"])),
    }
    named = in_sum or ":" in term["name"]  # a loss of another library is known by its name alone
    first = [("term", f"{term['weight']:g} × {term['name']}")] if named else []
    prefix = f"{term['name']}: " if in_sum else ""
    return first + [(name, f"{prefix}{fact}") for name, fact in facts.items() if fact]
