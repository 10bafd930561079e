"""docs/experiment.md, written from the models that experiment files are read with:
``python -m tools.experiment_page``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lossbench.experiment import reading
from lossbench.experiment.cells import Recipe
from tools.record_page import kind_in_words

PAGE = Path(__file__).parents[1] / "docs" / "experiment.md"
SHOWN = {
    "At the top": reading.ExperimentFile,
    "data set": reading.DataItem,
    "loss": reading.LossItem,
    "part": reading.PartItem,
    "recipe": Recipe,
}

HEAD = """# The experiment file

Written by `python -m tools.experiment_page` from the models that such a file is read with; do not edit.

An experiment is a TOML file: losses, data sets and seeds, each with each, under one recipe.

```toml
name = "mine"
seeds = 10
lengths = [300, 1200]
heads = ["prior"]
losses = ["ce", { use = "batch_dice(classes='all')", label = "batch dice" }]
datasets = [{ use = "folder(path='my_folder')", label = "mine" }]

[recipe]
schedule = "wsd"
batch = 16
```

`lossbench inspect FOLDER --write mine.toml` writes one for your images, with the reason beside each line;
`lossbench plan mine.toml` says what it costs.
An unknown key, a wrong type or a value out of range is told with its line and the nearest valid one.
"""


def markdown() -> str:
    """Return the page: one table a model, one row a key."""
    return "\n".join([HEAD, *(_section(title, kind) for title, kind in SHOWN.items())])


def _section(title: str, kind: type[BaseModel]) -> str:
    rows = [_row(name, field) for name, field in kind.model_fields.items()]
    return "\n".join(
        [
            f"## {title.capitalize()}",
            "",
            kind.__doc__,
            "",
            "| key | value | default | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _row(name: str, field: Any) -> str:
    meaning = " ".join((field.description or "").split())
    # TOML has no null, and calls an object a table.
    kind = (
        kind_in_words(field.annotation, SHOWN).removesuffix(" or null").replace("object of anything", "table")
    )
    return f"| `{name}` | {kind} | {_default(field)} | {meaning} |"


def _default(field: Any) -> str:
    if field.is_required():
        return "must be given"
    value = field.default
    # The recipe's own defaults stand in its table.
    if value is None or value in ((), {}) or isinstance(value, BaseModel):
        return ""
    return f"`{json.dumps(value)}`"


def write(page: Path = PAGE) -> None:
    """Write the page."""
    page.write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    write()
