"""Every loss that ships passes `lossbench check`: every loss x every test of the contract."""

import pytest

from lossbench.catalogue.registry import losses
from lossbench.losses import contract


@pytest.mark.parametrize("name", sorted(losses()))
def test_a_preset_passes_the_contract_in_full(name):
    rows = contract.run(name).rows
    assert [row for row in rows if row.passed is False] == []
    idle = {row.test for row in rows if row.passed is None}
    assert idle <= {"reduction", "cost, forward and backward", "pushes false positives down on empty images"}


@pytest.mark.parametrize(
    "spec",
    [
        "0.5*ce + 0.5*dice",
        "dice(over='batch', classes='all', absent='skip', smooth=[0, 1])",
        "lovasz(over='sample', classes='fg')",
        "ce_kl(over='batch', temperature=1)",
        "boundary(schedule='increase')",
        "wce(scheme='log', norm='pixels')",
        "ce(over='sample', weights=[1, 3])",
        "unified_focal(variant='released', symmetric=True)",
        "mbls(variant='released', margin=1)",
        "nacl(variant='released')",
        "t_loss(variant='released')",
        "cldice(variant='released', iterations=10, classes='all')",
        "hausdorff_dt(variant='released')",
        "gen_surface(variant='released', classes='fg')",
    ],
)
def test_variants_and_sums_pass_too(spec):
    # A list of two weights does not suit three classes.
    rows = [row for row in contract.run(spec).rows if "three classes" not in row.test]
    assert [row for row in rows if row.passed is False] == []
