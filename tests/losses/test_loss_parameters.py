"""A wrong parameter is answered by a sentence that names it and the nearest valid thing."""

import pytest
import torch
from loss_cases import case, needs

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import get_loss
from lossbench.losses import agreement, boundary, compound, overlap, pixel


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("dice(over='smaple')", "'over' of loss 'dice' must be one of 'sample', 'batch'"),
        ("dice(classes='foreground')", "classes='foreground' is not known; there are: all, fg"),
        (
            "dice(classes=[9])",
            "classes=[9] does not fit 2 classes; give 'fg', 'all' or different ids from 0 to 1",
        ),
        ("dice(classes=[1, 1])", "different ids"),
        ("dice(smooth=-1)", "smooth=-1.0 is not a number of at least 0; the nearest is 0"),
        ("dice(smooth=[1, 2, 3])", "neither a number nor a pair"),
        ("log_dice(smooth=0)", "smooth=0.0 is not a number of at least 1e-12"),
        ("focal(gamma=-2)", "gamma=-2.0 is not a number of at least 0; the nearest is 0"),
        ("focal(alpha=[1, 2, 3])", "alpha has 3 entries for 2 classes"),
        ("ce(weights=[1, 2, 3])", "weights has 3 entries for 2 classes"),
        ("wce(scheme='invers')", "'scheme' of loss 'wce' must be one of"),
        ("topk_ce(percent=140)", "percent=140.0 is not a number between 0 and 100; the nearest is 100"),
        ("tversky(fp_weigth=0.3)", "no parameter 'fp_weigth'; did you mean 'fp_weight'?"),
        ("tversky(fp_weight=-0.3)", "fp_weight=-0.3"),
        ("wasserstein_dice(distances=[[0, 1]])", "2 lists of 2 numbers"),
        ("wasserstein_dice(distances=[[0, 1], [1, 1]])", "is not zero on the diagonal: class 1 to itself"),
        ("ce_l1(temperature=0)", "temperature=0.0"),
        ("unified_focal(gamma=1)", "gamma=1.0"),
        ("nacl(width=4)", "width=4 is not known"),
    ],
)
def test_a_wrong_parameter_is_named_with_the_nearest_valid_thing(spec, words):
    logits, target = case(2, dtype=torch.float32)
    with pytest.raises(UserError) as caught:
        get_loss(spec)(logits, target, **needs(target, 2))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (overlap.dice, {"over": "smaple"}),
        (overlap.dice, {"absent": "drop"}),
        (agreement.generalized_dice, {"weighting": "sqare"}),
        (pixel.ce, {"weights": [1, 1], "norm": "weight"}),
        (pixel.ce, {"over": "image"}),
        (pixel.ce, {"weights": [1, 1], "over": "image"}),
        (pixel.topk_ce, {"over": "image"}),
        (pixel.wce, {"class_frequency": torch.tensor([0.5, 0.5]), "scheme": "frequency"}),
        (compound.ce_to_dice, {"progress": 0.5, "schedule": "lineer"}),
        (overlap.dice, {"smooth": "small"}),
        (pixel.focal, {"gamma": float("nan")}),
        (pixel.focal, {"gamma": True}),
    ],
)
def test_functions_called_directly_validate_too(function, arguments):
    logits, target = case(2, dtype=torch.float32)
    with pytest.raises(UserError):
        function(logits, target, **arguments)


def test_shapes_that_do_not_belong_together_are_named():
    with pytest.raises(UserError, match=r"logits of shape \(2, 2, 8, 8\) and target of shape \(2, 8, 4\)"):
        overlap.dice(torch.zeros(2, 2, 8, 8), torch.zeros(2, 8, 4, dtype=torch.long))
    with pytest.raises(UserError, match="distance_map has shape"):
        logits, target = torch.zeros(2, 2, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long)
        boundary.boundary(logits, target, progress=0.5, distance_map=torch.zeros(2, 1, 8, 8))


def test_losses_never_write_into_their_inputs():
    logits, target = case(3, dtype=torch.float32)
    supplied = needs(target, 3)
    kept = logits.clone(), target.clone(), supplied["distance_map"].clone()
    for spec in ("dice", "gen_surface", "hausdorff_dt", "lovasz", "svls", "wce", "cldice"):
        get_loss(spec)(logits, target, **supplied)
    for now, before in zip((logits, target, supplied["distance_map"]), kept, strict=True):
        assert torch.equal(now, before)
