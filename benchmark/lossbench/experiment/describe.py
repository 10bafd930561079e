"""What a results folder notes of an experiment, as plain JSON, so that whoever reads the results needs
neither the experiment's file nor the source of its losses and data sets: a default may change, a record
does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lossbench.base import specs
from lossbench.catalogue import spellings
from lossbench.catalogue.registry import DataSpec, LossSpec, LossTerm
from lossbench.data.sources import SOURCES
from lossbench.experiment.cells import Cell, Experiment, Part


def describe(experiment: Experiment, cells: list[Cell], cards: dict[str, str]) -> dict[str, Any]:
    """Return the note of an experiment (its schema: ``lossbench.store.note.Note``).

    ``cells`` are those that belong to it; ``cards`` names the file of each data card by the data set's label.
    """
    return {
        "name": experiment.name,
        "title": experiment.title,
        "file": Path(experiment.file).name,
        "seeds": list(experiment.seeds),
        "looks": list(experiment.looks),
        "choice": experiment.choice,
        "skipped": list(experiment.skipped),
        "cards": cards,
        "parts": [_part(part) for part in experiment.parts],
        "losses": {loss.text: _loss(loss) for loss in experiment.losses},
        "datasets": {
            data.public.text: {**_dataset(data), **_reference(experiment, data)}
            for data, *_ in experiment.datasets
        },
        "recipes": {
            recipe.digest: recipe.public.model_dump(mode="json") for *_, recipe in experiment.datasets
        },
        "cells": [
            [c.key, c.loss.fingerprint, c.loss.label, c.data_label, c.block, ",".join(c.parts)] for c in cells
        ],
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "title": part.title,
        "fixed": part.fixed,
        "seeds": list(part.seeds),
        "losses": [loss.text for loss in part.losses],
        "datasets": list(dict.fromkeys(data.public.text for data, *_ in part.datasets)),
    }


def _loss(loss: LossSpec) -> dict[str, Any]:
    return {
        "label": loss.label,
        "family": loss.family,
        "aliases": _spellings(loss),
        "terms": [_term(term) for term in loss.terms],
        "spelled": spellings.spelled(loss),
    }


def _spellings(loss: LossSpec) -> list[str]:
    """Return the loss with every parameter written out, under each of its names (a sum: under its own)."""
    names = [_called(term) for term in loss.terms]
    if len(names) == 1 and loss.terms[0].entry:
        names += loss.terms[0].entry.meta.get("aliases", ())
        return [specs.render(name, loss.terms[0].params) for name in names]
    return [specs.render_sum((t.weight, name, t.params) for name, t in zip(names, loss.terms, strict=True))]


def _called(term: LossTerm) -> str:
    return f"{term.library}:{term.name}" if term.library else term.name


def _term(term: LossTerm) -> dict[str, Any]:
    """Return what a report shows of one summand; of a loss of another library its name and arguments
    alone.
    """
    facts = {"weight": term.weight, "name": _called(term), "params": term.params}
    if term.entry is None:
        return facts
    meta = {key: term.entry.meta.get(key, "") for key in ("formula", "cite", "cost", "empty")}
    # Who computes what: a reader who knows the loss from its code may know another one.
    if term.entry.meta.get("released"):
        meta["cite"] += f"; released code: {term.entry.meta['released']}"
    return {**facts, **meta, "needs": list(term.entry.needs), "doc": _first(term.entry.doc)}


def _dataset(data: DataSpec) -> dict[str, Any]:
    public = data.public  # of a path only its last part
    return {
        "name": public.name,
        "params": public.params,
        "family": data.entry.family,
        "doc": _first(data.entry.doc),
    }


def _reference(experiment: Experiment, data: DataSpec) -> dict[str, Any]:
    """Return the score by which a data set counts as learnt: the experiment's, else a published one that was
    reached on a clean split with the same metric.
    """
    value, source = experiment.references.get(data.text, (None, ""))
    published = SOURCES[data.name].published if data.name in SOURCES else []
    for item in published if value is None else []:
        if item["comparable"] and item["metric"] in ("Dice", "mean Dice"):
            value, source = item["score"], f"published for {item['of']} ({item['source']})"
    return {"reference": value, "reference_source": source}


def _first(doc: str) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join(doc.split("\n\n")[0].split())
