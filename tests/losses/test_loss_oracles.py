"""Every preset against its formula, written slowly."""

import loss_oracles
import pytest
from loss_cases import PRESETS, case, needs, value

BY_PEERS_ONLY = {
    "nacl",
    "cldice",
    "hausdorff_dt",
    "skeleton_recall",
}  # held to MONAI and the authors' code in the parity tests and their frozen constants


@pytest.mark.parametrize("name", sorted(set(PRESETS) - BY_PEERS_ONLY))
@pytest.mark.parametrize("classes", [2, 3])
def test_a_preset_equals_its_formula(name, classes):
    logits, target = case(classes, size=(7, 9), seed=classes)
    supplied = needs(target, classes, progress=0.3)
    expected = loss_oracles.ORACLES[name](logits, target, **supplied)
    assert value(name, logits, target, supplied=supplied) == pytest.approx(
        float(expected), rel=2e-5, abs=1e-6
    )


def test_every_preset_has_an_oracle_or_a_peer():
    assert set(PRESETS) <= set(loss_oracles.ORACLES) | BY_PEERS_ONLY
