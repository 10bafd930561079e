"""Where two losses must coincide: special parameters, single images, hard labels."""

import math

import pytest
import torch
from loss_cases import PRESETS, VOID, case, constant, evaluate, needs, value

from lossbench.catalogue.registry import get_loss, losses
from lossbench.metrics import shares

NOTHING = {"progress": 0.5}  # that soft labels have no distances of

BATCH_WEIGHTED = {
    "wce",
    "balanced_ce",
    "dice_topk",
}  # a part of these is over the batch whatever `over` says of the rest
SAME = [
    ("tversky(fp_weight=0.5, fn_weight=0.5, smooth=0)", "dice(smooth=0)"),
    ("tversky(fp_weight=1, fn_weight=1)", "jaccard"),
    ("focal_tversky(gamma=1)", "tversky"),
    ("focal(gamma=0)", "ce"),
    ("topk_ce(percent=100)", "ce"),
    ("ls_ce(epsilon=0)", "ce"),
    ("poly_ce(epsilon=0)", "ce"),
    ("logit_adjusted_ce(strength=0)", "ce"),
    ("ohem(threshold=1)", "ce"),
    ("ohem(threshold=0, kept=14)", "topk_ce"),
    ("symmetric_ce(ce_weight=1, reverse_weight=0)", "ce"),
    ("symmetric_ce(ce_weight=1, floor=0.36787944117144233)", "poly_ce"),
    ("ce(weights=[1, 1, 1])", "ce"),
    ("ce(weights=[2, 2, 2], norm='pixels')", "2*ce"),
    ("ce(over='sample')", "ce"),
    ("wce(power=0)", "ce"),
    ("generalized_dice(classes=[2], smooth=0)", "dice(classes=[2], smooth=0)"),
    ("dsc_pp(gamma=1, smooth=0)", "dice(smooth=0)"),
    ("dice_semimetric(epsilon=0)", "dice"),
    ("dice(over='batch')", "batch_dice"),
    ("dice(classes='all')", "dice_all"),
    ("dice(classes=[1, 2])", "dice"),
    ("ce_l1(size_weight=0)", "ce"),
    ("ce_kl(size_weight=0)", "ce"),
    ("ce_db(size_weight=0)", "ce"),
    ("dice_ce(dice_weight=0)", "ce"),
    ("dice_ce", "dice + ce"),
    ("dice_focal(gamma=0)", "dice + ce"),
    ("dice_topk(percent=100)", "dice + ce"),
    ("mbls(margin_weight=0)", "ce"),
    ("mbls(margin=1000)", "ce"),
    ("nacl(prior_weight=0)", "ce"),
    ("cldice(skeleton_weight=0)", "dice(smooth=1)"),
    ("clce(line_weight=0)", "ce"),
    ("skeleton_recall(recall_weight=0)", "dice_ce"),
    ("blob(blob_weight=0)", "dice_ce"),
    ("rmi(ce_weight=1)", "ce"),
    ("ce_soft", "ce"),
    ("dice_soft(smooth=0)", "dice(smooth=0)"),
    ("jaccard_soft(smooth=0)", "jaccard(smooth=0)"),
    ("ce_to_dice(schedule='combo')", "0.5*dice + 0.5*ce"),
    ("unified_focal(weight=1, gamma=0, delta=0.5)", "0.5*ce"),
    ("unified_focal(weight=0, gamma=0, delta=0.5, smooth=0)", "3*dice_all(smooth=0)"),
    ("exp_log(gamma=1, ce_weight=0, smooth=1e-9)", "0.8*log_dice(classes='all', smooth=1e-9)"),
    ("boundary(schedule='constant', boundary_weight=0)", "dice_ce"),
    ("boundary(schedule='increase', boundary_weight=2)", "dice_ce + boundary(schedule='alone')"),
    ("gen_surface(schedule='constant')", "0.5*dice_ce + 0.5*gen_surface(schedule='alone')"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_special_parameters_give_the_other_loss(one, other):
    logits, target = case(3, (9, 8))
    (a, da), (b, db) = evaluate(one, logits, target), evaluate(other, logits, target)
    assert float(a) == pytest.approx(float(b), rel=1e-6)
    assert torch.allclose(da, db, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["dice", "lovasz", "ce_l1", "sens_spec", "generalized_dice"])
@pytest.mark.parametrize(("classes", "order"), [(2, [1, 0]), (3, [2, 0, 1]), (3, [2, 1])])
def test_the_order_in_which_classes_are_listed_does_not_matter(name, classes, order):
    logits, target = case(classes)
    listed, ordered = (value(f"{name}(classes={ids})", logits, target) for ids in (order, sorted(order)))
    assert listed == pytest.approx(ordered)


def test_each_blob_and_each_cell_has_its_own_dice_and_cross_entropy():
    target = torch.tensor([[[1, 0, 0, 1, 0]]])
    logits, ln2 = constant(0.5, target), math.log(2)
    # A blob and the three background pixels: TP 1/2, P 2, G 1.
    assert value("blob(region_weight=0, smooth=0)", logits, target) == pytest.approx(2 / 3 + ln2)
    # The released code predicts 1/2 under the other blob, too.
    released = "blob(region_weight=0, smooth=0, variant='released')"
    assert value(released, logits, target) == pytest.approx(5 / 7 + ln2)
    # Cells of two and of three pixels.
    assert value("cc_dice_ce", logits, target) == pytest.approx((1 / 2 + 3 / 5) / 2 + ln2)
    assert value("cc_dice_ce", logits, 0 * target) == pytest.approx(1 + ln2)


def test_objects_that_touch_at_a_corner_are_one():
    target = torch.tensor([[[1, 0, 0], [0, 1, 0], [0, 0, 0]]])
    assert value("cc_dice_ce", constant(0.3, target), target) == pytest.approx(
        value("dice_ce(smooth=0)", constant(0.3, target), target)
    )


def test_skeleton_recall_asks_for_the_line_in_the_middle():
    target = torch.zeros(1, 7, 11, dtype=torch.long)
    target[:, 2:5, 1:10] = 1
    logits = constant(0.25, target)
    logits[:, 1, 3] = 0  # 1/2 in the middle row
    extra = value("skeleton_recall(tube=0, smooth=0)", logits, target) - value(
        "dice_ce(smooth=0)", logits, target
    )
    # Of its eight pixels, by Zhang and Suen's rules, one is a corner of the bar.
    assert extra == pytest.approx(1 - (7 / 2 + 1 / 4) / 8)


def test_centerline_cross_entropy_adds_the_cost_on_both_lines():
    target = torch.zeros(1, 5, 5, dtype=torch.long)
    target[:, 2] = 1
    # A constant has no ridge; a line of one pixel is its own.
    logits = constant(0.5, target)
    assert value("clce", logits, target) == pytest.approx(math.log(2) * (1 + 5 / 25))


def test_the_curve_of_adaptive_wing_runs_on_as_a_straight_line():
    target = torch.tensor([[[1, 0]]])
    plain = "adaptive_wing(map_weight=0)"
    # An error of 1/4 and of 3/4 by hand; at 1/2 the line begins: w = (1/2)^(2.1-g).
    for error, g, power in ((0.25, 1, 1.1), (0.25, 0, 2.1), (0.75, 1, 1.1), (0.75, 0, 2.1)):
        logits = constant(1 - error if g else error, target[..., :1])
        edge = 0.5**power
        curve = 14 * math.log(1 + min(error, 0.5) ** power)
        line = max(0, error - 0.5) * 14 / (1 + edge) * power * 0.5 ** (power - 1)
        one = torch.full((1, 1, 1), g)
        assert value(plain, logits, one) == pytest.approx(curve + line)
    # Both pixels lie on the object or beside it.
    assert value("adaptive_wing", constant(0.5, target), target) == pytest.approx(
        11 * value(plain, constant(0.5, target), target)
    )


def test_mutual_information_leaves_what_the_prediction_does_not_explain():
    # d = 1: one number for each pixel, Σ its variance times the pixels.
    target = torch.tensor([[[1, 1, 0, 0]]])
    for margins, share in (([20.0, 20, -20, -20], 0), ([1.0, -1, 1, -1], 1), ([0.0, 0, 0, 0], 1)):
        logits = torch.tensor(margins, dtype=torch.float64).reshape(1, 1, 1, 4)
        left = math.log(share * 1 + 5e-4 + (1 - share) * 5e-4 / (1 + 5e-4))
        loss = value("rmi(ce_weight=0, radius=1, stride=1, classes='fg')", logits, target)
        assert loss == pytest.approx(left / 2, abs=1e-6)


def test_soft_labels_are_the_shares_of_the_raters():
    logits, _ = case(3, images=1)
    raters = torch.randint(0, 3, (4, 8, 8), generator=torch.Generator().manual_seed(1))
    raters[0, :2] = VOID  # one rater left the upper rows out, and all of them the first pixel
    raters[:, 0, 0] = VOID
    soft = torch.from_numpy(shares(raters.numpy(), classes=3, ignore_index=VOID))[None]
    assert not soft[..., 0, 0].any() and soft[0, :, 4, 4].sum() == 1
    # Where all have a label the mean of their cross-entropies is that of their shares.
    lower, each = logits[:, :, 2:], [value("ce", logits[:, :, 2:], rater[None, 2:]) for rater in raters]
    assert value("ce_soft", lower, soft[:, :, 2:], supplied=NOTHING) == pytest.approx(sum(each) / 4)
    z = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(get_loss("ce_soft + dice_soft + jaccard_soft")(z, soft), z)
    assert not gradient[..., 0, 0].any() and gradient[..., 1:, 1:].all()


def test_soft_overlap_is_perfect_where_the_prediction_is_the_share():
    half = torch.full((1, 2, 1, 2), 0.5)
    # p = (1/2, 1/2) against q = (1/2, 1/2), and p = (1, 0): Σ p = Σ q = 1, Σ |p - q| = 1.
    for margins, dice, jaccard in (([0.0, 0], 0, 0), ([50.0, -50], 1 / 2, 2 / 3)):
        logits = torch.tensor(margins).reshape(1, 1, 1, 2)
        assert value("dice_soft", logits, half, supplied=NOTHING) == pytest.approx(dice, abs=1e-5)
        assert value("jaccard_soft", logits, half, supplied=NOTHING) == pytest.approx(jaccard, abs=1e-5)
        # One channel for one: the share of class 1.
        assert value("dice_soft", logits, half[:, :1], supplied=NOTHING) == pytest.approx(dice, abs=1e-5)


def test_labels_that_do_not_exclude_each_other_have_one_sigmoid_each():
    logits, _ = case(3)
    labels = torch.randint(0, 2, logits.shape, generator=torch.Generator().manual_seed(1))
    binary = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.double())
    assert float(get_loss("ce", multilabel=True)(logits, labels)) == pytest.approx(float(binary))
    each = [value("dice", logits[:, c : c + 1], labels[:, c]) for c in range(3)]
    assert float(get_loss("dice", multilabel=True)(logits, labels)) == pytest.approx(sum(each) / 3)


def test_the_logarithm_of_the_hausdorff_loss():
    logits, target = case()
    expected = math.log(1 + value("hausdorff_dt", logits, target))
    assert value("log_hausdorff_dt", logits, target) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0.0, "ce"), (1.0, "dice"), (0.25, "0.75*ce + 0.25*dice")],
)
def test_ce_to_dice_moves_from_one_to_the_other(progress, expected):
    logits, target = case()
    assert value("ce_to_dice", logits, target, progress=progress) == pytest.approx(
        value(expected, logits, target)
    )


def test_finetune_switches_once():
    logits, target = case()
    moved = [
        value("ce_to_dice(schedule='finetune', switch=0.6)", logits, target, progress=t)
        for t in (0.0, 0.6, 0.61)
    ]
    assert moved == pytest.approx([value(name, logits, target) for name in ("ce", "ce", "dice")])


def test_boundary_rebalances_down_to_its_floor():
    logits, target = case()
    region, border = value("dice_ce", logits, target), value("boundary(schedule='alone')", logits, target)
    for progress, a in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.1)):
        assert value("boundary", logits, target, progress=progress) == pytest.approx(
            a * region + (1 - a) * border
        )


def test_uniform_generalized_dice_is_one_dice_over_all_classes_and_pixels():
    logits, target = case(3)
    p, g = logits.softmax(1), (target[:, None] == torch.arange(3).view(3, 1, 1)).double()
    micro = 1 - 2 * (p * g).sum((1, 2, 3)) / (p + g).sum((1, 2, 3))
    assert value("generalized_dice(weighting='uniform', smooth=0)", logits, target) == pytest.approx(
        float(micro.mean())
    )


def test_wasserstein_dice_of_two_equally_distant_classes_is_dice():
    logits, target = case()
    assert value("wasserstein_dice(smooth=0)", logits, target) == pytest.approx(
        value("dice(smooth=0)", logits, target)
    )
    explicit = "wasserstein_dice(distances=[[0, 3], [3, 0]], smooth=0)"
    assert value(explicit, logits, target) == pytest.approx(value("dice(smooth=0)", logits, target))


def test_squared_dice_is_the_relative_squared_error():
    logits, target = case(images=1)
    p, g = logits.softmax(1)[:, 1], (target == 1).double()
    expected = float(((p - g) ** 2).sum() / (p**2 + g**2).sum())
    assert value("dice_squared(smooth=0)", logits, target) == pytest.approx(expected)


def test_on_a_hard_prediction_dice_cosine_and_jaccard_are_the_set_measures():
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    target[0, :2] = 1  # 8 pixels
    prediction = torch.zeros(1, 4, 4, dtype=torch.long)
    prediction[0, 1:3] = 1  # 8 pixels, 4 of them right
    logits = torch.zeros(1, 2, 4, 4, dtype=torch.float64).scatter_(1, prediction[:, None], 100.0)
    for name, expected in {
        "dice": 1 / 2,
        "jaccard": 2 / 3,
        "cosine": 1 / 2,
        "dice_squared": 1 / 2,
        "lovasz(classes='fg')": 2 / 3,
    }.items():
        assert value(name, logits, target) == pytest.approx(expected, abs=1e-5), name
    assert value("mcc", logits, target) == pytest.approx(1.0)  # 4 x 4 - 4 x 4 = 0
    assert value("tversky(fp_weight=0.2, fn_weight=0.8)", logits, target) == pytest.approx(
        1 - 4 / (4 + 0.8 + 3.2), abs=1e-5
    )


@pytest.mark.parametrize(
    "name", [n for n in PRESETS if "over" in losses()[n].params and n != "generalized_dice"]
)
def test_batch_and_sample_agree_on_one_image(name):
    logits, target = case(3, images=1)
    supplied = needs(target, 3)
    batch, sample = (
        value(f"{name}(over='{over}')", logits, target, supplied=supplied) for over in ("batch", "sample")
    )
    assert batch == pytest.approx(sample, rel=1e-7)


@pytest.mark.parametrize(
    "name", [n for n in PRESETS if "over" in losses()[n].params and n not in BATCH_WEIGHTED]
)
def test_per_sample_is_the_mean_of_the_images(name):
    logits, target = case(2, images=3)
    supplied = needs(target, 2)
    each = []
    for i in range(3):
        one = dict(supplied, distance_map=supplied["distance_map"][i : i + 1])
        each.append(value(f"{name}(over='sample')", logits[i : i + 1], target[i : i + 1], supplied=one))
    assert value(f"{name}(over='sample')", logits, target, supplied=supplied) == pytest.approx(
        sum(each) / 3, rel=1e-7
    )


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("inverse", [1 / 0.7, 1 / 0.2, 1 / 0.1]),
        ("inverse_sqrt", [0.7**-0.5, 0.2**-0.5, 0.1**-0.5]),
        ("median", [0.2 / 0.7, 1, 0.2 / 0.1]),
        ("log", [1 / 0.5423242908253617, 1 / 0.19885085874516517, 1 / 0.11332868530700327]),
        ("effective", [1e-4 / (1 - 0.9999 ** (f * 1e6)) for f in (0.7, 0.2, 0.1)]),
    ],
)
def test_class_weights_follow_their_scheme_and_have_mean_one(scheme, expected):
    from lossbench.losses.pixel import class_weights

    weights = class_weights(torch.tensor([0.7, 0.2, 0.1]), scheme)
    mean = sum(expected) / 3
    assert weights.tolist() == pytest.approx([w / mean for w in expected], rel=1e-5)


def test_class_weights_survive_a_class_that_never_occurs():
    from lossbench.losses.pixel import SCHEMES, class_weights

    for scheme in SCHEMES:
        assert class_weights(torch.tensor([1.0, 0.0]), scheme).isfinite().all()


def test_weights_come_from_the_training_split_and_never_from_the_batch():
    logits, target = case(2)
    frequency = torch.tensor([0.9, 0.1], dtype=torch.float64)
    expected = value("ce(weights=[1, 9])", logits, target)
    assert value("wce", logits, target, supplied=needs(target, 2, frequency=frequency)) == pytest.approx(
        expected, rel=1e-6
    )
