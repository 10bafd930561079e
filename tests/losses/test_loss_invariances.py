"""What must not matter: the order of pixels, images and classes, a shift of the logits, the size of the grid,
void pixels.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import ON_PROCESSOR, PRESETS, SLOW, VOID, case, evaluate, needs, value

from lossbench.catalogue.registry import get_loss, losses

LOCAL = ON_PROCESSOR | {"adaptive_wing", "cldice", "clce", "nacl", "rmi", "svls"}  # look at neighbours
MAPPED = {"boundary", "gen_surface"}
# Tiles are counted from a corner; of two objects that are equally near the first is taken.
FROM_A_CORNER = {"rmi", "cc_dice_ce"}
FG_IS_SPECIAL = {name for name, entry in losses().items() if entry.params.get("classes") == "fg"}
FG_IS_SPECIAL |= {"wasserstein_dice", "unified_focal", "gen_surface"}


def close(a, b, rel=1e-6):
    assert a == pytest.approx(b, rel=rel, abs=1e-9)


@pytest.mark.parametrize("name", sorted(set(PRESETS) - LOCAL))
def test_a_joint_permutation_of_the_pixels_changes_nothing(name):
    logits, target = case(3, (8, 8))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    supplied = needs(target, 3)

    def move(x):
        return x.flatten(-2)[..., order].reshape(x.shape)

    moved = dict(supplied, distance_map=move(supplied["distance_map"]))
    close(
        value(name, logits, target, supplied=supplied),
        value(name, move(logits), move(target), supplied=moved),
    )


@pytest.mark.parametrize("name", sorted(set(PRESETS) - FG_IS_SPECIAL))
def test_a_permutation_of_the_classes_changes_nothing(name):
    logits, target = case(3)
    order = torch.tensor([2, 0, 1])  # the old class of each new one
    supplied = needs(target, 3)
    moved = dict(supplied, class_frequency=supplied["class_frequency"][order])
    close(
        value(name, logits, target, supplied=supplied),
        value(name, logits[:, order], torch.argsort(order)[target], supplied=moved),
    )


@pytest.mark.parametrize("name", sorted(set(PRESETS) - FROM_A_CORNER))
def test_flipping_the_image_flips_the_gradient(name):
    logits, target = case(2, (10, 8))
    a, da = evaluate(name, logits, target)
    b, db = evaluate(name, logits.flip(2), target.flip(1))
    close(float(a), float(b))
    assert torch.allclose(da.flip(2), db, atol=1e-9)


@pytest.mark.parametrize("name", PRESETS)
def test_the_order_of_the_images_does_not_matter(name):
    logits, target = case(3, images=3)
    order = torch.tensor([1, 2, 0])
    close(value(name, logits, target), value(name, logits[order], target[order]))


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"nacl"}))
def test_a_shift_of_all_logits_changes_nothing(name):
    logits, target = case(3)
    shift = torch.linspace(-3, 3, 64, dtype=torch.float64).reshape(1, 1, 8, 8)
    close(value(name, logits, target), value(name, logits + shift, target))


# In the logarithm of t_loss stands the sum over an image, which grows with it.
@pytest.mark.parametrize("name", sorted(set(PRESETS) - LOCAL - MAPPED - {"t_loss"}))
def test_tiling_the_image_changes_nothing(name):
    logits, target = case(3, (10, 10))  # top-k takes whole pixels: a tenth of 200 and of 800
    supplied = needs(target, 3)
    tiled, tiled_target = logits.repeat(1, 1, 2, 2), target.repeat(1, 2, 2)
    close(
        value(name, logits, target, supplied=supplied),
        value(
            name, tiled, tiled_target, supplied=needs(tiled_target, 3, frequency=supplied["class_frequency"])
        ),
        rel=1e-4,
    )


def test_generalized_dice_is_scale_free_on_a_large_volume():
    target = torch.zeros(1, 128, 128, 128, dtype=torch.long)
    target[:, :64, :, :122] = 1  # about a million voxels
    loss = float(get_loss("generalized_dice")(torch.zeros(1, 2, 128, 128, 128), target))
    share = float(target.double().mean())
    assert loss == pytest.approx(1 - 2 * share * (1 - share), abs=1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_one_channel_is_two_channels_with_zero(name):
    logits, target = case(1)
    a, da = evaluate(name, logits, target)
    b, db = evaluate(name, torch.cat([torch.zeros_like(logits), logits], 1), target)
    close(float(a), float(b))
    assert torch.allclose(da, db[:, 1:], atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"nacl", "svls"}))
def test_a_volume_of_depth_one_is_an_image(name):
    logits, target = case(2)
    close(value(name, logits, target), value(name, logits.unsqueeze(-1), target.unsqueeze(-1)))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("void", [VOID, -1])
def test_void_pixels_have_no_gradient_and_no_say(name, void):
    logits, target = case(3, (8, 8), images=3, dtype=torch.float32)
    hole = torch.rand(target.shape, generator=torch.Generator().manual_seed(3)) < 0.3
    hole[2] = True  # one image is void altogether
    supplied = needs(torch.where(hole, VOID, target), 3)
    holed = torch.where(hole, void, target)
    a, da = evaluate(name, logits, holed, void, supplied=supplied)
    b, _ = evaluate(
        name, torch.where(hole.unsqueeze(1), 7 * logits.flip(1), logits), holed, void, supplied=supplied
    )
    assert (da.movedim(1, -1)[hole] == 0).all()
    if name not in LOCAL - {"svls", "nacl", "adaptive_wing", "rmi"}:
        close(float(a), float(b))
    c, dc = evaluate(name, logits, target, void, supplied=supplied)
    d, dd = evaluate(name, logits, target, None, supplied=supplied)
    close(float(c), float(d))
    assert torch.allclose(dc, dd, atol=1e-8)


@pytest.mark.parametrize("name", sorted(set(PRESETS) - LOCAL - MAPPED))
def test_void_pixels_could_as_well_be_cut_off(name):
    logits, target = case(2, (10, 8))
    supplied = needs(target, 2)
    holed = target.clone()
    holed[:, 7:] = VOID
    cut = value(name, logits[:, :, :7], target[:, :7], supplied=dict(supplied, distance_map=None))
    close(value(name, logits, holed, ignore_index=VOID, supplied=supplied), cut)


def test_a_void_label_may_be_a_class_id():
    logits, target = case(3)
    supplied = needs(target, 3)
    for name in ("dice", "ce", "focal", "lovasz", "ce_l1"):
        _, gradient = evaluate(name, logits, target, 0, supplied=supplied)
        assert (gradient.movedim(1, -1)[target == 0] == 0).all(), name


images = st.tuples(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6)
)


@settings(max_examples=40, deadline=None)
@given(images, st.floats(0.1, 30))
def test_any_image_gives_finite_values_and_ordered_losses(shape, scale):
    classes, count, height, width, seed = shape
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, height, width, generator=generator) * scale
    target = torch.randint(0, max(2, classes), (count, height, width), generator=generator)
    supplied = needs(target, classes)
    found = {}
    for name in set(PRESETS) - SLOW:
        loss, gradient = evaluate(name, logits, target, supplied=supplied)
        assert loss.isfinite() and gradient.isfinite().all(), name
        found[name] = float(loss)
    for name in (
        "dice",
        "dice_all",
        "batch_dice",
        "dice_squared",
        "jaccard",
        "tversky",
        "generalized_dice",
        "lovasz",
        "gen_surface",
    ):
        bound = 60 if name == "gen_surface" else 1
        assert -1e-5 <= found[name] <= bound + 1e-5, name
    assert found["dice"] <= found["log_dice"] + 1e-5
    assert found["dice"] <= found["jaccard"] + 1e-5
    assert found["focal"] <= found["ce"] + 1e-5
    assert found["ce"] <= found["topk_ce"] + 1e-4
    assert 0 <= found["mcc"] <= 2 + 1e-5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 20))
def test_cosine_never_exceeds_squared_dice_and_jaccard_follows_from_dice(seed, scale):
    logits, target = case(2, (6, 6), images=1, seed=seed, scale=scale)
    cosine, squared, dice, jaccard = (
        value(f"{n}(smooth=0)", logits, target) for n in ("cosine", "dice_squared", "dice", "jaccard")
    )
    assert cosine <= squared + 1e-9
    overlap = 1 - dice
    assert 1 - jaccard == pytest.approx(overlap / (2 - overlap), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_lovasz_of_a_hard_prediction_is_the_jaccard_loss(seed, classes):
    logits, target = case(classes, (6, 6), images=1, seed=seed)
    hard = torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1000.0)
    assert value("lovasz", hard, target) == pytest.approx(
        value("jaccard(classes='all', smooth=0)", hard, target), abs=1e-9
    )


def test_a_class_that_is_skipped_does_not_dilute_the_mean():
    logits, target = case(2, images=2)
    target[1] = 0
    alone = value("dice", logits[:1], target[:1])
    assert value("dice(absent='skip')", logits, target) == pytest.approx(alone)
    assert value("dice", logits, target) == pytest.approx((alone + 1) / 2, abs=1e-6)
    assert value("dice(absent='skip')", logits[1:], target[1:]) == 0


def test_soft_labels_stay_distributions_beside_void_pixels():
    target = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    target[:, 2:5, 3:6] = VOID
    assert value("svls", torch.zeros(2, 3, 8, 8), target, ignore_index=VOID) == pytest.approx(
        torch.tensor(3.0).log().item()
    )


def test_the_boundary_term_is_a_mean_over_valid_pixels():
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[:, 4:] = VOID
    supplied = dict(needs(target, 2), distance_map=torch.full((1, 2, 8, 8), 2.0))
    loss = value(
        "boundary(schedule='alone')", torch.zeros(1, 2, 8, 8), target, ignore_index=VOID, supplied=supplied
    )
    assert loss == pytest.approx(1.0)


@pytest.mark.parametrize("label", [0, 1])
def test_mcc_of_one_class_only_is_undefined_and_says_one_without_gradient(label):
    logits = torch.randn(2, 2, 200, 200, generator=torch.Generator().manual_seed(0))
    loss, gradient = evaluate("mcc", logits, torch.full((2, 200, 200), label))
    assert float(loss) == 1
    assert gradient.abs().max() == 0
