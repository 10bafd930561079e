"""docs/record.md, written from the models that check records and notes: ``python -m tools.record_page``."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from lossbench.store import note, schema

PAGE = Path(__file__).parents[1] / "docs" / "record.md"
SHOWN = {
    "A record": schema.Record,
    "cell": schema.Cell,
    "recipe": schema.Recipe,
    "certificate": schema.Certificate,
    "cost": schema.Cost,
    "provenance": schema.Provenance,
    "An error record": schema.ErrorRecord,
    "The note of a results folder": note.Note,
    "part": note.Part,
    "loss": note.Loss,
    "term": note.Term,
    "data set": note.Dataset,
}
WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    type(None): "null",
    Any: "anything",
}

HEAD = """# What a results folder holds

Written by `python -m tools.record_page` from the models that check what is read; do not edit.

`cells/` holds one file a finished cell, `records.zip` the same files packed, `experiment.json` the note of
the last sweep; all are strict JSON in UTF-8. A file that is not as it should be is set aside in
`quarantine/`, and its cell counts as missing. The last member of a record, `check`, is the CRC-32 of all
bytes before it. Keys marked with \\* may be absent; unknown keys are left alone.
"""


def markdown() -> str:
    """Return the page: one table a model, one row a key."""
    return "\n".join([HEAD, *(_section(title, kind) for title, kind in SHOWN.items())])


def _section(title: str, kind: type[schema.Facts]) -> str:
    rows = [_row(name, field) for name, field in kind.model_fields.items()]
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in kind.__doc__.split("\n\n"))
    text = text.replace("``", "`")
    return "\n".join([f"## {title}", "", text, "", "| key | type | meaning |", "|---|---|---|", *rows, ""])


def _row(name: str, field: Any) -> str:
    optional = "" if field.is_required() else " \\*"
    meaning = " ".join((field.description or "").split()).replace("``", "`").replace("|", "\\|")
    return f"| `{field.alias or name}`{optional} | {kind_in_words(field.annotation, SHOWN)} | {meaning} |"


def kind_in_words(annotation: Any, shown: dict[str, type[BaseModel]]) -> str:
    """Return a type in words; a model that the page shows by the title of its table."""
    titles = {kind: title for title, kind in shown.items()}
    if annotation in titles:
        return f"[{titles[annotation]}](#{titles[annotation].replace(' ', '-')})"
    if annotation in WORDS:
        return WORDS[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind_in_words(inner[0], shown)
    if origin is Literal:
        return " or ".join(f'"{word}"' for word in inner)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(kind_in_words(kind, shown) for kind in inner)
    if origin is list or (origin is tuple and inner[-1] is ...):
        return f"list of {kind_in_words(inner[0], shown)}"
    if origin is dict:
        return f"object of {kind_in_words(inner[1], shown)}"
    return "list"


def write(page: Path = PAGE) -> None:
    """Write the page."""
    page.write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    write()
