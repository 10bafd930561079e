"""A wrong call of any loss gets one sentence with its likely cause; what lies under void pixels is void."""

import numpy as np
import pytest
import torch
from loss_cases import PRESETS, VOID, case, needs

from lossbench.base.errors import UserError
from lossbench.catalogue import loss_module
from lossbench.catalogue.registry import get_loss

Z, Y = case(2, (4, 4), dtype=torch.float32)
ONE_HOT = torch.stack([1 - Y, Y], 1)


def stray(*labels):
    target = Y.clone()
    target[0, 0, : len(labels)] = torch.tensor(labels)
    return target


@pytest.mark.parametrize(
    ("logits", "target", "words"),
    [
        (
            Z,
            Y * 255,
            "label 255 with 2 classes: a 0/255 mask. divide by 255, or ignore_index=255 where 255 marks void",
        ),
        (Z, stray(255), "label 255 with 2 classes: void pixels. ignore_index=255"),
        (Z, stray(-100), "label -100 with 2 classes: void pixels. ignore_index=-100"),
        (Z, stray(torch.iinfo(torch.int64).min), "label -9223372036854775808 with 2 classes"),
        (Z, Y + 1, "label 2 with 2 classes: do the labels begin at 1. subtract 1"),
        (Z, Y * 0 + 2, "label 2 with 2 classes: do the labels begin at 1. subtract 1"),
        (Z, stray(2), "with 2 classes: have the logits a channel for each class. .* ignore_index=2"),
        (Z, (Y * 255).clamp(3, 252), "a 0/255 mask with blurred edges, as of a JPEG. .target > 127"),
        (Z[:, :1], Y + 1, "label 2 with 2 classes"),
        (Z, stray(5, 3, 4, 7), "labels 3, 4, 5, ... with 2 classes: are they class ids"),
        (Z, (Y * 255).to(torch.uint8), "label 255 with 2 classes: a 0/255 mask"),
        (Z, Y.float(), "the target is of float32; .* where they are whole numbers, target.long"),
        (Z, Y.to(torch.complex64), "the target is of complex64; a loss takes"),
        (Z, ONE_HOT, "the target has the shape of the logits; .* target.argmax"),
        (Z, Y[:, None].float(), r"where they are whole numbers, target.squeeze\(1\).long\(\)"),
        (Z, Y.to_sparse(), "the target is sparse; .* target.to_dense"),
        (Z[:, :0], Y, "the logits have no channel"),
        (Z, Y[:, None], r"target of shape \(2, 1, 4, 4\) do not belong together; .* target.squeeze"),
        (Z, Y[:, :3], r"logits of shape \(2, 2, 4, 4\) and target of shape \(2, 3, 4\)"),
        (Z[0], Y[0], "of one image, logits.unsqueeze"),
        (Y, Z, "the logits are of int64; .* are logits and target swapped"),
        (Z.numpy(), Y, "the logits are a numpy array; .* torch.as_tensor"),
        (Z, Y.numpy(), "the target is a numpy array"),
        (Z, Y.tolist(), "the target is a list"),
        (Z[:0], Y[:0], "an empty batch has no loss"),
    ],
)
def test_a_wrong_call_gets_a_sentence_with_its_likely_cause(logits, target, words):
    for name in ("dice", "ce", "0.5*ce + 0.5*dice"):
        with pytest.raises(UserError, match=words):
            get_loss(name)(logits, target)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("target", [stray(2), stray(-1), Y * 255, Y.float(), Y[:, 1:], Y[:0]])
def test_no_loss_takes_a_wrong_target(name, target):
    with pytest.raises(UserError):
        get_loss(name)(Z, target, **needs(Y, 2))


def test_a_keyword_that_no_loss_takes_and_one_that_is_missing_are_named():
    with pytest.raises(UserError, match="a loss takes no 'ignore_idx'; did you mean 'ignore_index'"):
        get_loss("dice")(Z, Y, ignore_idx=VOID)
    with pytest.raises(UserError, match=r"needs distance_map=\.\.\. at each call: the signed distance"):
        get_loss("ce + boundary")(Z, Y, progress=0.5)


@pytest.mark.parametrize(
    ("spec", "supplied", "words"),
    [
        ("dice", {"ignore_index": "255"}, "ignore_index='255': must be one whole number"),
        ("dice", {"ignore_index": [255]}, "must be one whole number"),
        ("ce_to_dice", {"progress": 5}, "progress=5: must be how far training is, from 0 to 1"),
        ("ce_to_dice", {"progress": float("nan")}, "progress=nan: must be"),
        ("ce_to_dice", {"progress": "half"}, "progress='half': must be"),
        ("wce", {"class_frequency": [0.5, 0.5]}, "class_frequency is a list; it must be a tensor"),
    ],
)
def test_a_keyword_with_a_value_that_cannot_be_meant_is_refused(spec, supplied, words):
    with pytest.raises(UserError, match=words):
        get_loss(spec)(Z, Y, **supplied)


def test_a_loss_is_named_by_a_text_that_holds_its_parameters():
    for wrong in (None, ["dice"], torch.nn.functional.cross_entropy):
        with pytest.raises(UserError, match="a loss is named by a text, as 'dice'"):
            get_loss(wrong)
    with pytest.raises(UserError, match=r'get_loss\("dice\(smooth=1\)"\)'):
        get_loss("dice", smooth=1)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (ONE_HOT.float()[:, :, 1:], "do not belong together; soft labels are the share"),
        (2.0 * ONE_HOT, "do not sum to 1 at some pixel"),
        (ONE_HOT.float() - 0.5, "are negative"),
        (ONE_HOT * torch.nan, "do not sum to 1"),
        (1.3 * ONE_HOT.to(torch.bfloat16), "do not sum to 1"),
        (ONE_HOT, "the target has the shape of the logits"),
    ],
)
def test_wrong_soft_labels_get_a_sentence(target, words):
    for name in ("ce_soft", "dice_soft + jaccard_soft"):
        with pytest.raises(UserError, match=words):
            get_loss(name)(Z, target)
    with pytest.raises(UserError):
        get_loss("ce_soft + ce")(Z, ONE_HOT.float())


def test_one_channel_of_shares_is_looked_at_too_and_half_precision_may_round():
    for wrong in (Y[:, None] * 255.0, Y[:, None] - 3.0, Y[:, None] * torch.nan):
        with pytest.raises(
            UserError, match=r"do not sum to 1 at some pixel; .* by its largest value, as 255"
        ):
            get_loss("ce_soft")(Z[:, :1], wrong)
    assert get_loss("ce_soft")(Z[:, :1], Y[:, None].float()).isfinite()
    logits = torch.randn(2, 19, 8, 8, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float16, torch.bfloat16):
        assert get_loss("ce_soft")(logits, logits.softmax(1).to(dtype)).isfinite()


@pytest.mark.parametrize("soft", [False, True])
def test_a_share_of_zero_counts_nothing_even_where_the_logit_is_minus_infinity(soft):
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    logits[:, 2] = -torch.inf
    logits.requires_grad_()
    target = torch.stack([1 - Y, Y, 0 * Y], 1).float() if soft else Y
    value = get_loss("ce_soft")(logits, target)
    value.backward()
    assert float(value.detach()) == pytest.approx(float(get_loss("ce")(logits.detach(), Y)))
    assert logits.grad.isfinite().all()


def test_wrong_calls_of_several_labels_get_a_sentence():
    with pytest.raises(UserError, match=r"of one shape, \(N, C, \*S\)"):
        get_loss("dice", multilabel=True)(Z, Y)
    with pytest.raises(UserError, match=r"boundary needs distance_map=\.\.\., .* exclude each other"):
        get_loss("boundary", multilabel=True)


def test_a_target_is_read_again_after_it_was_changed():
    target, loss = Y.clone(), get_loss("dice")
    assert loss(Z, target) == loss(Z, target)
    target[0, 0, 0] = 3
    with pytest.raises(UserError, match="label 3"):
        loss(Z, target)
    # What is void for one call is not for the next.
    assert loss(Z, target, ignore_index=3).isfinite()
    with pytest.raises(UserError, match="label 3"):
        loss(Z, target)


def test_declared_void_labels_and_every_integer_type_are_fine():
    expected = get_loss("dice")(Z, Y)
    for dtype in loss_module.WHOLE:
        assert get_loss("dice")(Z, Y.to(dtype)) == expected
    for void in (VOID, -100, 0):
        assert get_loss("dice")(Z, stray(void), ignore_index=void).isfinite()
    assert get_loss("dice(ignore_index=255)")(Z, stray(VOID)).isfinite()
    assert get_loss("dice")(
        Z, Y.movedim(2, 1), ignore_index=VOID
    ).isfinite()  # labels that are not contiguous


@pytest.mark.parametrize("void", [VOID, -1, 0])
def test_a_stray_label_is_seen_beside_void_ones(void):
    with pytest.raises(UserError, match="label 3 with 2 classes"):
        get_loss("dice")(Z, stray(void, 3), ignore_index=void)


@pytest.mark.parametrize(("void", "label"), [(-100, 156), (-1, 255)])
def test_a_void_label_that_the_type_of_the_target_cannot_hold_marks_no_pixel(void, label, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch.nn.functional as F\nfrom lossbench import loss\n\n@loss('mine')\n"
        "def mine(logits, target, *, ignore_index=-100):\n"
        "    return F.cross_entropy(logits, target.long(), ignore_index=ignore_index)\n"
    )
    torch.manual_seed(0)
    logits, target = torch.randn(2, 260, 4, 4), torch.full((2, 4, 4), label)
    target[:, :2] = 3
    small = target.to(torch.uint8)  # in torch its 156 == -100
    for spec in ("ce", f"ce(ignore_index={void})", "dice", "mine", f"mine(ignore_index={void})"):
        loss = get_loss(spec, [str(file)])
        given = {} if str(void) in spec else {"ignore_index": void}
        torch.testing.assert_close(loss(logits, small, **given), loss(logits, target))


def test_without_the_check_nothing_is_looked_at():
    assert get_loss("dice", check=False)(Z, Y * 255).isfinite()
    assert get_loss("dice", check=False)(Z, Y) == get_loss("dice")(Z, Y)


@pytest.mark.parametrize("name", ["skeleton_recall", "hausdorff_dt", "blob"])
def test_a_loss_that_breaks_a_graph_compiles_with_targets_that_were_never_seen(name):
    compiled, loss = torch.compile(get_loss(name), backend="eager"), get_loss(name)
    for _ in range(2):
        target = Y.clone()
        assert compiled(Z, target, **needs(target, 2)) == pytest.approx(float(loss(Z, target, **needs(Y, 2))))


def test_a_target_of_inference_mode_is_read_at_each_call():
    loss = get_loss("dice")
    with torch.inference_mode():
        target = Y.clone()
        loss(Z, target)
        target[0, 0, 0] = 3
        with pytest.raises(UserError, match="label 3"):
            loss(Z, target)


def test_labels_are_not_read_where_that_would_break_a_recording():
    loss, wrong = get_loss("dice"), Y * 255
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert compiled(Z, wrong).isfinite()
    assert torch.func.vmap(lambda z, y: loss(z[None], y[None]))(Z, wrong).isfinite().all()
    assert loss(Z.to("meta"), wrong.to("meta")).is_meta


def test_the_assertion_for_a_device_fails_for_stray_labels_alone():
    # The function that CUDA tensors go through, on the CPU, where the assertion is immediate.
    loss_module._assert_later(stray(VOID), 2, (VOID, None))
    with pytest.raises(RuntimeError, match="a label is not one of 2 classes"):
        loss_module._assert_later(stray(VOID, 3), 2, (VOID, None))


@pytest.mark.parametrize("name", [*PRESETS, "torch:CrossEntropyLoss"])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_what_the_logits_hold_under_void_pixels_enters_nothing(name, wrong):
    logits, target = case(3, (6, 6), dtype=torch.float32)
    target[:, :2] = VOID
    broken = logits.clone()
    broken[:, :, :2] = wrong
    supplied = needs(target, 3)
    results = []
    for z in (logits, broken):
        z = z.clone().requires_grad_()
        value = get_loss(name)(z, target, ignore_index=VOID, **supplied)
        (gradient,) = torch.autograd.grad(value, z)
        results.append((value.item(), gradient))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1]) and not results[0][1][:, :, :2].any()


@pytest.mark.parametrize("name", ["ce_kl", "ce_kl(over='batch')", "svls"])
def test_an_absent_class_that_the_network_rules_out_costs_nothing(name):
    logits, target = case(2, (6, 6), dtype=torch.float64)
    ruled_out = torch.cat([logits, torch.full_like(logits[:, :1], -torch.inf)], 1).requires_grad_()
    value = get_loss(name)(ruled_out, target)
    (gradient,) = torch.autograd.grad(value, ruled_out)
    assert value.item() == pytest.approx(get_loss(name)(logits, target).item())
    assert gradient.isfinite().all() and not gradient[:, 2].any()


@pytest.mark.parametrize("shape", [(2, 8, 8), (8, 3, 2), (1, 1, 1)])
def test_nacl_takes_volumes_thinner_than_its_neighbourhood(shape):
    logits, target = case(2, (8, 8, 8), dtype=torch.float64)
    whole = tuple(slice(side) for side in shape)
    z, y = logits[(..., *whole)], target[(..., *whole)]
    value = float(get_loss("nacl(width=5)")(z, y))
    # The share of class 1 among the 5 x 5 x 5 neighbours, zeros beyond the border, by plain counting.
    mask = np.pad(y.numpy(), [(0, 0), (2, 2), (2, 2), (2, 2)])
    windows = (
        np.lib.stride_tricks.sliding_window_view(mask, (5, 5, 5), axis=(1, 2, 3)).sum((-3, -2, -1)) / 125
    )
    inside = np.pad(np.ones_like(y.numpy()), [(0, 0), (2, 2), (2, 2), (2, 2)])
    known = (
        np.lib.stride_tricks.sliding_window_view(inside, (5, 5, 5), axis=(1, 2, 3)).sum((-3, -2, -1)) / 125
    )
    share = np.stack([known - windows, windows], 1)
    expected = float(get_loss("ce")(z, y)) + 0.1 * np.abs(z.numpy() - share).mean()
    assert value == pytest.approx(expected)
