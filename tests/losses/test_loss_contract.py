"""Every loss that ships passes `lossbench check`: every loss x every test of the contract."""

import pytest
import torch
from loss_cases import case, evaluate, needs

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import get_loss, losses
from lossbench.losses import contract

AXES = (1, 2, 3, 4)


@pytest.mark.parametrize("name", sorted(losses()))
def test_a_preset_passes_the_contract_in_full(name):
    rows = contract.run(name).rows
    assert [row for row in rows if row.passed is False] == []
    idle = {row.test for row in rows if row.passed is None}
    idle -= {"reduction", "cost, forward and backward", "pushes false positives down on empty images"}
    dims = losses()[name].meta.get("dims", AXES)
    assert idle == (set() if 1 in dims else {"1-D signals"})


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", sorted(losses()))
def test_a_loss_takes_images_of_so_many_axes_or_says_which_it_takes(name, axes):
    logits, target = case(2, (4,) * axes, dtype=torch.float32)
    dims = losses()[name].meta.get("dims", AXES)
    if axes in dims:
        found, gradient = evaluate(name, logits, target)
        assert found.isfinite() and gradient.isfinite().all()
        return
    *others, last = (f"{number}-D" for number in dims)
    taken = f"{name} is for {', '.join(others)} and {last} images"
    for spec in (name, f"0.5*ce + 0.5*{name}"):
        with pytest.raises(UserError, match=rf"^{taken}; logits of shape .* have {axes} spatial ax"):
            get_loss(spec)(logits, target, **needs(target, 2))


def test_a_loss_of_ones_own_names_its_axes_too(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FLAT.format(dims="(2,)"))
    flat = get_loss("flat", [file])
    assert flat(*case(2, (4, 4))).isfinite()
    with pytest.raises(UserError, match=r"flat is for 2-D images; .* have 3 spatial axes"):
        flat(*case(2, (4, 4, 4)))
    file.write_text(FLAT.format(dims="2"))
    with pytest.raises(UserError, match=r"mine.py:.* dims of @loss\('flat'\) .* as \(2, 3\), got 2"):
        get_loss("flat", [file])


FLAT = """
import torch
from lossbench import loss

@loss("flat", dims={dims})
def flat(logits, target):
    return torch.nn.functional.cross_entropy(logits.float(), target)
"""


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
