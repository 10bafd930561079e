"""The generated page and the facts that every loss states of itself."""

import re
import runpy
import sys

import numpy as np
import pytest
import torch

from lossbench.catalogue.adapters import PEERS
from lossbench.catalogue.registry import losses
from lossbench.catalogue.source import PACKAGE
from lossbench.report import loss_cards
from tools import cases, costs, losses_page, metric_cases, spellings

BUILT_IN = [entry for entry in losses().values() if entry.file.parent.name == "losses"]


def test_the_page_is_up_to_date():
    assert losses_page.PAGE.read_text(encoding="utf-8") == losses_page.markdown(), (
        "run: python -m tools.losses_page"
    )


@pytest.mark.parametrize("entry", BUILT_IN, ids=lambda entry: entry.name)
def test_every_loss_states_its_facts(entry):
    for fact in ("cite", "formula", "empty", "cost", "penalises_empty"):
        assert fact in entry.meta, fact
    assert entry.family in losses_page.FAMILIES
    assert entry.doc
    assert re.fullmatch(r"[\d.]+x", entry.meta["cost"])
    assert entry.params["ignore_index"] is None
    assert set(entry.meta.get("tune", {})) <= set(entry.params)
    for name, (low, high) in entry.meta.get("tune", {}).items():
        assert low < high, name
    if entry.name not in ("ce", "cosine"):
        assert re.search(r"(19|20)\d\d", entry.meta["cite"])


def test_the_cost_of_a_loss_is_what_was_measured():
    measured = costs.costs()
    assert len(measured) > 50
    assert costs.stale() == [], "run: python -m tools.costs, then python -m tools.losses_page"
    page = losses_page.PAGE.read_text(encoding="utf-8")
    assert f"| Salehi 2017 | {measured['tversky']} |" in page
    # What the column says of itself is what perf/losses.py does.
    shape = re.search(r"logits (\(8,\s2, 128, 128\)), one thread", costs.PAGE.read_text(encoding="utf-8"))
    assert " ".join(shape[1].split()) in page


def test_every_paper_that_a_loss_cites_can_be_read():
    for entry in BUILT_IN:
        cited = re.findall(r"[A-Z][\w-]+(?: & [A-Z]\w+)? \d{4}", entry.meta["cite"])
        linked = [name.partition(" (")[0] for name in loss_cards.NAME.findall(entry.meta["cite"])]
        assert linked == [name for name in cited if name != "MONAI 2023"], entry.name  # code, not a paper


def test_every_parameter_with_choices_declares_them():
    for entry in BUILT_IN:
        for name in {"over", "absent", "schedule", "scheme", "weighting", "norm"} & set(entry.params):
            assert entry.params[name] in entry.choices[name], (entry.name, name)


def test_loss_modules_import_only_what_fingerprints_follow():
    allowed = ("lossbench.catalogue.registry", "lossbench.catalogue.loss_module", "lossbench.base.errors")
    for file in (PACKAGE / "losses").glob("*.py"):
        if file.stem == "contract":  # tests losses, is none
            continue
        for module in re.findall(r"^ *from (lossbench\S*) import", file.read_text(), re.M):
            assert module in allowed or module.startswith("lossbench.losses"), (file, module)


def test_the_page_of_spellings_is_what_was_measured_and_names_every_loss():
    page = spellings.PAGE.read_text(encoding="utf-8")
    assert page == spellings.markdown()
    # MONAI's is equal for two classes alone.
    assert re.search(r"`SoftDiceclDiceLoss\(include_background=False\)` \([\d.e-]+, 2 classes\)", page)
    for entry in BUILT_IN:
        assert f"[`{entry.name}`](losses.md#{entry.name})" in page
    # What a spelling leads to is what MONAI's users train with.
    assert "| `DiceLoss` (" in next(line for line in page.splitlines() if line.startswith("| [`dice_all`]"))


def test_no_class_that_is_a_loss_of_ours_is_missing_from_the_page_of_spellings():
    page = spellings.PAGE.read_text(encoding="utf-8")
    table = [line.split(" | ") for line in page.splitlines() if line.startswith("| [`")]
    spelled = {column: " ".join(row[n] for row in table) for n, column in enumerate(spellings.COLUMNS, 1)}
    # Each class that an adapter calls stands in the table, or below it with the reason.
    for prefix, column in spellings.LIBRARIES.items():
        for name in PEERS[prefix]:
            known = re.search(rf"\b{name}\b", spelled[column])
            assert bool(known) != (name in spellings.ALONE.get(column, {})), (column, name)
    # So does each class whose cases agreed.
    for column, _, name, _, agreed, *_ in case_rows():
        if column in spelled and name.lower().endswith("loss") and int(agreed):
            assert re.search(rf"\b{name}\b", page), (column, name)


def case_rows():
    table = cases.PAGE.read_text(encoding="utf-8").partition("|---|")[2].splitlines()[1:]
    return [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table]


def test_the_page_of_cases_adds_up_and_knows_of_every_difference():
    rows = case_rows()
    counts = [[int(cell) for cell in row[3:]] for row in rows]
    for tried, *parts in counts:
        assert tried == sum(parts)
    assert counts[-1] == [sum(column) for column in zip(*counts[:-1], strict=True)]
    assert {row[2] for row in rows[:-1] if int(row[-1])} == {"MCCLoss"}


def test_a_case_of_monai_is_asked_of_our_loss():
    logits, target = torch.tensor([[[[1.0, -1.0], [-1.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    # The first case of MONAI's test of Dice.
    given = {"sigmoid": True, "smooth_nr": 1e-6, "smooth_dr": 1e-6}
    table = cases.counted([("DiceLoss", cases.monai("DiceLoss", given, logits, target), 0.307576)])
    assert table == {"DiceLoss": {"tried": 1, "agreed": 1}}
    table = cases.counted([("DiceLoss", cases.monai("DiceLoss", {"weight": [2.0]}, logits, target), 0.3)])
    assert table == {"DiceLoss": {"tried": 1, "not expressible": 1}}


def test_the_page_of_cases_holds_the_metrics_of_monai():
    agreed = {name: int(row[1]) for project, _, name, *row in case_rows() if project == "MONAI"}
    for kind, *_ in metric_cases.FUNCTIONS.values():
        assert agreed[kind] > 0, kind


@pytest.mark.parametrize(
    ("column", "lacks", "theirs", "counts"),
    [
        ("dice", "", 0.8, {"agreed": 1}),  # the first case of MONAI's test
        ("dice", "", 0.7, {"differ": 1}),
        ("hd", "", 1.0, {"agreed": 1}),
        ("hd", "directed", 1.0, {"not expressible": 1}),
        ("hd", "", np.inf, {"not expressible": 1}),
    ],
)
def test_a_pair_of_masks_is_asked_of_our_metric(column, lacks, theirs, counts, capsys):
    pred, true = np.array([[1, 0], [0, 1]], np.uint8), np.array([[1, 0], [1, 1]], np.uint8)
    case = metric_cases.Case(column, lacks, pred, true, theirs)
    assert cases.counted([("kind", case.ours(), theirs)]) == {"kind": {"tried": 1, **counts}}


def test_a_class_that_the_truth_does_not_hold_has_no_score_in_both_or_is_another_convention():
    pred, true = np.ones((2, 2), np.uint8), np.zeros((2, 2), np.uint8)
    for column, theirs, found in (("dice", np.nan, "agreed"), ("iou", 0.0, "not expressible")):
        case = metric_cases.Case(column, "", pred, true, theirs)
        assert cases.counted([("kind", case.ours(), theirs)])["kind"][found] == 1
    assert metric_cases.Case("dice_all", "", pred, true, 0.0).ours()() == 0


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_a_call_of_monai_is_heard_and_spelled():
    surface_dice = pytest.importorskip("monai.metrics").compute_surface_dice
    heard, mask = {}, torch.zeros(2, 2, 8, 8)
    mask[0, 1, 2:5, 2:6] = 1
    *_, spelled = metric_cases.FUNCTIONS["surface_dice", "compute_surface_dice"]
    hearing = metric_cases._hearing(surface_dice, spelled, heard)
    for _ in range(2):
        hearing(mask, mask.roll(1, -1), class_thresholds=[1.0], spacing=(1.0, 2.0))
    one, other = heard.values()
    assert (one.column, one.options) == ("nsd_1", {"tolerance": 1.0, "spacing": (1.0, 2.0)})
    assert one.ours()() == pytest.approx(one.theirs) and 0 < one.theirs < 1
    assert np.isnan(other.theirs) and np.isnan(other.ours()())


def test_projects_that_are_not_here_keep_their_rows(tmp_path):
    page = tmp_path / "cases.md"
    page.write_text(cases.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    cases.write(tmp_path, page)
    assert page.read_text(encoding="utf-8") == cases.PAGE.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:'tools")
@pytest.mark.parametrize("tool", ["cases", "released", "register"])
def test_a_tool_without_its_folder_says_what_it_needs(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [tool])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"tools.{tool}", run_name="__main__", alter_sys=True)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(rf"tools.{tool} needs .* folder .*: python -m tools.{tool} .*FOLDER$", line)
