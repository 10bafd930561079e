"""docs/experiment.md says what an experiment file may hold."""

import tomllib

import pytest

from lossbench.experiment.form import ExperimentFile
from tools import experiment_page


def test_the_page_is_what_the_models_say():
    text = experiment_page.PAGE.read_text(encoding="utf-8")
    assert text == experiment_page.markdown(), "run: python -m tools.experiment_page"


@pytest.mark.parametrize("kind", experiment_page.SHOWN.values(), ids=list(experiment_page.SHOWN))
def test_every_key_has_a_meaning(kind):
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


def test_its_example_is_such_a_file():
    example = experiment_page.HEAD.partition("```toml\n")[2].partition("```")[0]
    parsed = ExperimentFile.model_validate(tomllib.loads(example))
    assert parsed.recipe.schedule == "wsd" and parsed.losses[1].label == "batch dice"
