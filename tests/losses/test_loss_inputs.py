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
        (Z, Y * 255, "label 255 with 2 classes: a 0/255 mask. divide by 255, or ignore_index=255"),
        (Z, stray(255), "label 255 with 2 classes: void pixels. ignore_index=255"),
        (Z, stray(-100), "label -100 with 2 classes: void pixels. ignore_index=-100"),
        (Z, stray(torch.iinfo(torch.int64).min), "label -9223372036854775808 with 2 classes"),
        (Z, Y + 1, "label 2 with 2 classes: do the labels begin at 1. subtract 1"),
        (Z[:, :1], Y + 1, "label 2 with 2 classes"),
        (Z, stray(5, 3, 4, 7), "labels 3, 4, 5, ... with 2 classes: are they class ids"),
        (Z, (Y * 255).to(torch.uint8), "label 255 with 2 classes: a 0/255 mask"),
        (Z, Y.float(), "the target is of float32; .* where they are whole numbers, target.long"),
        (Z, Y.to(torch.complex64), "the target is of complex64; a loss takes"),
        (Z, ONE_HOT, "the target has the shape of the logits; .* target.argmax"),
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
    ("target", "words"),
    [
        (ONE_HOT.float()[:, :, 1:], "do not belong together; soft labels are the share"),
        (2.0 * ONE_HOT, "do not sum to 1 at some pixel"),
        (ONE_HOT.float() - 0.5, "are negative"),
        (ONE_HOT * torch.nan, "do not sum to 1"),
        (ONE_HOT, "the target has the shape of the logits"),
    ],
)
def test_wrong_soft_labels_get_a_sentence(target, words):
    for name in ("ce_soft", "dice_soft + jaccard_soft"):
        with pytest.raises(UserError, match=words):
            get_loss(name)(Z, target)
    with pytest.raises(UserError):
        get_loss("ce_soft + ce")(Z, ONE_HOT.float())


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


def test_without_the_check_nothing_is_looked_at():
    assert get_loss("dice", check=False)(Z, Y * 255).isfinite()
    assert get_loss("dice", check=False)(Z, Y) == get_loss("dice")(Z, Y)


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
