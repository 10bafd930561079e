"""Every number that scoring gives has a name, a unit and a direction, and the documentation lists it."""

from pathlib import Path

import numpy as np
import pytest

from lossbench.base.columns import METRICS, PRIMARY, describe, label, markdown
from lossbench.metrics import score_images

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_every_score_of_the_summary_is_described_and_nothing_else():
    masks = np.eye(8, dtype=np.uint8)[None]
    _, summary = score_images(np.stack([1.0 - masks, masks], axis=1), masks)
    counts = {"n_test", "n_present", "n_empty", "n_lesions", "n_pixels", "n_pixels_fg", "foreground_true"}
    assert {name.partition("@")[0] for name in summary} - counts == set(METRICS)


def test_the_documentation_holds_the_table_of_all_metrics_as_it_is_in_the_code():
    assert markdown() in DOCS.read_text(encoding="utf-8"), (
        "put the output of describe.markdown() into docs/metrics.md"
    )


def test_a_metric_has_a_direction_or_a_target():
    assert all((m.higher_is_better is None) == (m.target is not None) for m in METRICS.values())
    assert set(PRIMARY) <= set(METRICS)


def test_labels_name_the_unit_and_the_arm():
    assert label("hd95@val", "mm") == "HD95 (mm), threshold from validation"
    assert label("dice@0.5") == "Dice, at 0.5"
    assert label("nll") == "NLL (nats)"
    assert describe("dice@val").higher_is_better
    with pytest.raises(KeyError, match="dyce"):
        describe("dyce@0.5")
