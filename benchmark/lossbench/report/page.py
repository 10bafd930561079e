"""The single offline HTML file that answers: verdicts first, then figures, leaderboards, effects, collapses,
what is missing, provenance.

Nothing is computed here: every number comes from a table of ``lossbench.analysis`` and is only put into words
and shapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossbench.base.errors import UserError
from lossbench.report import context
from lossbench.report.context import About

if TYPE_CHECKING:
    import pandas as pd

    from lossbench.analysis.answers import Answers
    from lossbench.figures.drawing import Drawn

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("script.js", "tables.js")


def script_json(value: Any) -> str:
    """Return a value as JSON that is safe inside a script element: no character can end the element or begin
    another.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "&<>\u2028\u2029":
        # A label such as </script> would end the block and run what follows it.
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def demoted(text: str) -> str:
    """Return a section with its headings one level lower, as part of a group."""
    from markupsafe import Markup

    # Markup would escape what it is given as a replacement.
    plain = "".join(text)
    for level in (3, 2):
        plain = plain.replace(f"<h{level}", f"<h{level + 1}").replace(f"</h{level}>", f"</h{level + 1}>")
    return Markup(plain)


def build(
    tables: Mapping[str, pd.DataFrame],
    answers: Answers,
    figures: Iterable[Drawn],
    out: str | Path,
    about: About | None = None,
) -> Path:
    """Write the report to ``out`` and return its path; equal input gives equal bytes."""
    import jinja2

    # Everything is escaped that does not say otherwise: labels come from users' files. A name that the
    # templates use and nobody gives is a mistake here, not an empty place on the page.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["demoted"] = demoted
    facts = context.gather(tables, answers, list(figures), about or About())
    # Inside the page, which has to work offline and alone.
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    template = environment.get_template("report.html.j2")
    text = template.render(**facts, json=script_json, style=style, script=script)
    out = Path(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the report to {out}: {error.strerror or error}") from None
    return out
