"""What the pages say about each other holds: links lead somewhere, quoted speeds stand in the measured pages,
nothing is left to be written.
"""

import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from lossbench import __version__
from lossbench.analysis import flips
from lossbench.cli.main import app
from lossbench.data import suggestion
from tools import findings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        file = page.parent / path if path else page
        assert file.exists() or _made_by_the_study(file), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            assert f'id="{anchor}"' in file.read_text(encoding="utf-8") or anchor in _headings(file), (
                f"{page.name}: {target}"
            )


def _made_by_the_study(file: Path) -> bool:
    return (ROOT / "results" / "paper") in [folder.absolute() for folder in Path(str(file.resolve())).parents]


def _headings(file: Path) -> set[str]:
    found = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_is_left_to_be_written(page):
    text = page.read_text(encoding="utf-8")
    for mark in ("<!-- prose", "TODO", "FIXME", "XXX"):
        assert mark not in text


def _rows(page: str) -> list[tuple[str, str]]:
    """Return what each row of the table of speeds says, with the text of the page that it links."""
    found = re.findall(
        r"\[([^\]]+)\]\((\w+\.md)\)\.?([^|]*)\|", (ROOT / "docs" / page).read_text(encoding="utf-8")
    )
    return [
        (says + " " + rest, (ROOT / "docs" / name).read_text(encoding="utf-8")) for says, name, rest in found
    ]


def test_the_speeds_told_are_those_that_were_measured():
    rows = _rows("speed.md")
    assert len(rows) == 15
    for says, measured in rows:
        for number in NUMBER.findall(says):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d|[.,]\d)", measured), f"{number} in: {says}"


def test_the_readme_is_short_and_leaves_verdicts_and_speeds_to_their_pages():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") < 120
    assert "<!-- verdicts" not in text and "cells an hour" not in text
    for page in ("findings", "first_study", "speed"):
        assert f"(docs/{page}.md)" in text
    assert text.count("https://arxiv.org") + text.count("https://doi.org") >= 8


def test_the_trials_of_the_first_study_are_marked_as_trials():
    text = findings.prose((ROOT / "docs" / "first_study.md").read_text(encoding="utf-8"))
    tables = re.findall(r"((?:^\|.*\n)+)", text, re.MULTILINE)
    assert len(tables) == 2
    for table in tables:
        above = text[: text.index(table)].rstrip().splitlines()[-1]
        assert "trials" in table.splitlines()[0] or "trials" in above


def test_the_python_of_the_page_of_commands_runs(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    exec(text.split("```python\n")[1].split("```")[0], {})
    assert 0 < float(capsys.readouterr().out) < 1


def options_of(command, name="lossbench"):
    """Return the options of every command by its name, as ``lossbench list losses``."""
    if not hasattr(command, "commands"):
        return {name: {word for option in command.params for word in (*option.opts, *option.secondary_opts)}}
    return {
        k: v for own, sub in command.commands.items() for k, v in options_of(sub, f"{name} {own}").items()
    }


def test_the_page_of_commands_names_every_command_and_no_option_that_there_is_not():
    known, named = options_of(typer.main.get_command(app)), set()
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\| `lossbench .*", text, re.MULTILINE):
        first = row.split(" | ")[0]
        own = {name for name in known if re.search(rf"`{name}\b", first)}
        # Another command's option stands behind its name: `sweep --shard 2/5`.
        for command, option in re.findall(r"`(?:lossbench )?([\w ]*)[^`]*?(--[a-z-]+)", row):
            of = {f"lossbench {command.strip()}"} & known.keys() or own
            assert option in set().union(*(known[name] for name in of)), (row, option)
        named |= own
    assert named == known.keys()


def test_every_page_stands_in_the_contents_of_the_site():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {
        name
        for block in re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL)
        for name in block.split("\n")
    }
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} <= listed


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_a_network(tmp_path):
    pytest.importorskip("sphinx", reason="the extra 'docs' is not installed")
    command = [sys.executable, "-m", "sphinx", "--quiet", "-W", "-b", "html", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    pages = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.html")}
    for name, text in pages.items():
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+', text)
        assert not loaded, (name, loaded)
    assert "get_loss" in pages["api.html"] and 'id="c9"' in pages["findings.html"]
    assert list(tmp_path.glob("_downloads/*/report.html"))


def test_the_citation_file_names_this_version_and_no_more_than_is_known():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^([a-z-]+): *(.*)$", text, re.MULTILINE))
    assert fields["cff-version"] == "1.2.0"
    assert fields["type"] == "software"
    assert fields["version"].strip('"') == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
    assert fields["license"] == project["license"]
    assert [author["name"] in text for author in project["authors"]] == [True]
    assert "doi" not in text.lower()


def test_the_changelog_tells_of_this_version():
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_command_that_the_pages_tell_exists():
    from typer.main import get_command

    from lossbench.cli.main import app

    known = set(get_command(app).commands)
    told = set(
        re.findall(
            r"(?:^|`|bin/)lossbench ([a-z]+)",
            "\n".join(page.read_text(encoding="utf-8") for page in PAGES),
            re.MULTILINE,
        )
    )
    assert len(told) > 5 and told <= known, told - known


def test_there_are_as_many_claims_as_the_pages_say():
    from lossbench.analysis.claims import read_claims

    assert len(read_claims(ROOT / "results" / "paper" / "claims.toml").claims) == 16
    for name in ("README.md", "docs/findings.md", "CHANGELOG.md"):
        assert "ixteen" in (ROOT / name).read_text(encoding="utf-8")


def test_the_tutorial_says_how_many_seeds_a_decision_takes():
    said = (ROOT / "docs" / "tutorial_your_data.md").read_text(encoding="utf-8")
    number = {6: "six", 7: "seven", 8: "eight", 10: "ten"}
    needed = [number[flips.seeds_needed(math.comb(losses, 2))] for losses in (2, 3, 4)]
    assert "at least {} for two losses, {} for three, {} for four".format(*needed) in said
    first = flips.seeds_needed(math.comb(4, 2) * len(suggestion.SEEDS[4]))
    assert first == suggestion.SEEDS[4][0] and f"{number[first]} for four at the first look" in said
