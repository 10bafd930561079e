"""One list says what each column is called, measured in and aims at; tables and docs hold no other."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from lossbench.base import columns
from lossbench.metrics import score_images
from lossbench.tables import compact

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import mini_study

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_every_score_of_the_summary_is_in_the_list_and_nothing_else():
    masks = np.eye(8, dtype=np.uint8)[None]
    summary = score_images(np.stack([1.0 - masks, masks], axis=1), masks).summary
    assert {name.partition("@")[0] for name in summary} == {
        c.name for c in (*columns.SCORES, *columns.COUNTS)
    }


@pytest.mark.parametrize("part", ["SCORES", "ON_REQUEST", "IMAGES", "COUNTS", "COURSE"])
def test_the_documentation_holds_the_columns_as_they_are_in_the_code(part):
    assert columns.markdown(getattr(columns, part)) in DOCS.read_text(encoding="utf-8"), (
        f'python -c "from lossbench.base import columns; print(columns.markdown(columns.{part}))"'
    )


def test_names_and_titles_are_unique_and_a_direction_is_one_of_the_words():
    parts = (columns.SCORES, columns.ON_REQUEST, columns.IMAGES, columns.COUNTS, columns.COURSE)
    listed = [column for part in parts for column in part]
    assert len(columns.COLUMNS) == len(listed) == len({c.title for c in listed})
    assert {c.direction for c in listed} == {"higher", "lower", "near 0", "near 1", "none"}


def test_every_column_that_the_code_names_is_in_the_list():
    package = Path(columns.__file__).parents[1]
    code = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    named = set(re.findall(r"[\"']([a-z]\w*)@(?:0\.5|val)[\"']", code))
    assert "dice" in named and named <= columns.COLUMNS.keys()


def test_every_number_of_a_table_is_in_the_list():
    table = compact.compact(mini_study.records())
    facts = {*compact.LEADING, *compact.TRAILING, "image", "class", "group"}
    names = {name for kind in ("cells", "images") for name in table[kind]} - facts
    numbers = {name.partition("@")[0] for name in names if not name.startswith(("data.", "recipe.", "loss."))}
    assert numbers <= columns.COLUMNS.keys() | columns.OLD.keys()


def test_a_column_is_found_by_its_older_and_by_its_newer_name():
    assert columns.spelled("false_alarms@val", {"fp_rate@val"}) == "fp_rate@val"
    assert columns.spelled("fp_rate@0.5", {"false_alarms@0.5"}) == "false_alarms@0.5"
    assert columns.spelled("dice@0.5", {"dice@val"}) == "dice@0.5"
    assert columns.title("fp_rate@0.5") == "False alarms at 0.5"
    assert columns.title("dice:liver@0.5") == "Dice (liver) at 0.5"


def test_a_title_names_the_arm_and_an_unknown_column_keeps_its_own_name():
    assert columns.title("hd95@val") == "HD95 at val. threshold"
    assert columns.title("dice@0.5") == "Dice at 0.5"
    assert columns.title("nll") == "NLL"
    assert columns.title("mine@0.5") == "mine at 0.5"


@pytest.mark.parametrize(
    ("estimand", "form"),
    [
        ("dice@0.5", "points"),
        ("(0.2 dice@val - dice@0.5)", "points"),
        ("|log_size_ratio_soft| of ce minus dice", "factor"),
        ("rank agreement (Kendall's tau) of the losses by dice@0.5 and by nll", "plain"),
        ("hd95@val", "distance"),
        ("1e-05 dice@0.5", "points"),
        ("", "plain"),
    ],
)
def test_a_difference_is_written_as_its_first_column_is(estimand, form):
    assert columns.form(estimand) == form


def test_directions_rank_scores_upwards_distances_downwards_and_sizes_by_nearness():
    assert not columns.lower_is_better("dice@val")
    assert columns.lower_is_better("hd95@0.5") and columns.lower_is_better("collapsed")
    assert columns.nearer_is_better("log_size_ratio_hard@0.5") and not columns.nearer_is_better("nll")


def test_the_list_needs_nothing_but_python():
    source = Path(columns.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r"^(?:from|import) (\w+)", source, flags=re.M)) <= {
        "__future__",
        "re",
        "collections",
        "typing",
    }
