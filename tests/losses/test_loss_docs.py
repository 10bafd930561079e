"""The generated page and the facts that every loss states of itself."""

import re

import pytest
import torch

from lossbench.catalogue.adapters import PEERS
from lossbench.catalogue.registry import losses
from lossbench.catalogue.source import PACKAGE
from lossbench.report import loss_cards
from tools import cases, losses_page, spellings

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
