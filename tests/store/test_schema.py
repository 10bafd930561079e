"""One model checks a record and documents it: what training writes stands in it, the page is made from it."""

import pytest
from test_store import a_record

from lossbench.store import provenance
from lossbench.store.schema import Facts, Record, wrong
from lossbench.store.store import Store
from tools import record_page


def test_the_page_is_the_one_that_the_models_give():
    text = record_page.PAGE.read_text(encoding="utf-8")
    assert text == record_page.markdown(), "run: python -m tools.record_page"


def unknown(kind, facts, place=""):
    """Return the keys of facts that a model does not have, also within the models of its fields."""
    fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    names = [f"{place}{name}" for name in facts if name not in fields]
    for name, annotation in fields.items():
        if isinstance(annotation, type) and issubclass(annotation, Facts) and name in facts:
            names += unknown(annotation, facts[name], f"{place}{name}.")
    return names


def test_every_key_that_a_training_writes_is_documented(tmp_path):
    from lossbench.experiment.cells import Cell, Recipe
    from lossbench.sweep import train_stack

    data = "scenes(foreground=0.1, size=16, n_train=4, n_val=4, n_test=4)"
    cell = Cell.of(data, "torch:CrossEntropyLoss", recipe=Recipe(widths=(4, 8), steps=2, validations=1))
    outcomes = train_stack.run_stack(train_stack.payload([cell], tmp_path, (), provenance.collect(tmp_path)))[
        "outcomes"
    ]
    assert outcomes.keys() == {cell.key} and outcomes[cell.key] != "failed"
    record = Store(tmp_path).read(*cell.pair)
    whole = set(cell.recipe.model_dump()) - {
        "learning_rate",
        "steps",
        "batch",
        "optimizer",
        "augment",
        "precision",
    }
    assert set(unknown(Record, record)) == {f"cell.recipe.{name}" for name in whole}  # named as a whole


@pytest.mark.parametrize("part", ["certificate", "cost", "provenance", "cell"])
def test_a_key_of_a_later_version_is_left_alone(part):
    record = a_record()
    record[part] = {**record[part], "new": 1}
    assert wrong(Record, {**record, "new": 1}) == ""


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"seed": True}, "its 'cell.seed' is not what it should be"),
        ({"seed": "0"}, "its 'cell.seed' is not what it should be"),
        ({"seed": 2**63}, "its cell holds a number that is too large, or is nested too deeply"),
        ({"recipe": {"steps": 1.5}}, "its 'cell.recipe.steps' is not what it should be"),
        ({"loss_terms": [[1.0, "dice"]]}, "it has no 'cell.loss_terms.0.2'"),
        (
            {"data_params": [[[[[[[[[[0]]]]]]]]]]},
            "its cell holds a number that is too large, or is nested too deeply",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_types_are_taken_as_they_are_written(facts, why):
    record = a_record()
    record["cell"] = record["cell"] | facts
    assert wrong(Record, record) == why


def test_a_learning_rate_may_be_a_whole_number_or_the_word_tuned():
    for rate in (1, 0.5, "tuned"):
        record = a_record()
        record["cell"] = record["cell"] | {"recipe": {"learning_rate": rate}}
        assert wrong(Record, record) == ""
