"""Derivatives, precision, vmap, compile, degenerate inputs; and descending a loss finds the target."""

from itertools import product

import pytest
import torch
from loss_cases import ON_PROCESSOR, PRESETS, SLOW, VOID, case, evaluate, needs
from torch.autograd import gradcheck

from lossbench.catalogue.registry import get_loss, load_function, losses

VARIANTS = [
    *PRESETS,
    *(
        "focal(gamma=0.5)",
        "focal(gamma=1.3, alpha=0.25)",
        "ce(weights=[1, 3, 2])",
        "ce(over='sample')",
        "wce(norm='pixels')",
    ),
    *(
        "topk_ce(over='sample')",
        "dice(smooth=[0, 1e-5])",
        "dice(absent='skip')",
        "lovasz(over='sample', classes='fg')",
    ),
    *(
        "generalized_dice(absent='skip', over='batch')",
        "ce_kl(over='batch', temperature=1)",
        "ce_db(classes='fg')",
    ),
    *(
        "boundary(schedule='alone')",
        "gen_surface(schedule='alone')",
        "dsc_pp(gamma=1.5)",
        "dice_ce(over='batch', classes='all')",
    ),
    *("rmi(stride=1, radius=2)", "rmi(variant='released', stride=1, radius=2)", "blob(variant='released')"),
]


@pytest.mark.parametrize("spec", VARIANTS)
@pytest.mark.parametrize("void", [None, VOID])
def test_the_gradient_is_the_derivative(spec, void):
    logits, target = case(3, (4, 4))
    if void:
        target[:, 3] = VOID
    supplied = needs(target, 3)
    loss = get_loss(spec)
    assert gradcheck(
        lambda z: loss(z, target, ignore_index=void, **supplied), logits.requires_grad_(), eps=1e-6, atol=1e-6
    )


def degenerate():
    grid = torch.zeros(2, 6, 6, dtype=torch.long)
    one = grid.clone()
    one[:, 2, 3] = 1
    half_void = grid.clone()
    half_void[1] = VOID
    yield "all background", grid
    yield "all foreground", grid + 1
    yield "one pixel", one
    yield "an empty image beside another", torch.stack([one[0], grid[0]])
    yield "fully ignored", torch.full_like(grid, VOID)
    yield "one image ignored", half_void
    yield "one pixel in all", torch.ones(1, 1, 1, dtype=torch.long)


def predictions(target, classes=3):
    """Return logits that are random, right, wrong and huge."""
    shape = (target.shape[0], classes, *target.shape[1:])
    right = torch.zeros(shape).scatter_(1, torch.where(target < classes, target, 0).unsqueeze(1), 50.0)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return {"random": noise, "right": right, "wrong": -right, "huge": noise.sign() * 1e4}


@pytest.mark.parametrize("spec", VARIANTS)
def test_degenerate_inputs_give_finite_value_and_gradient(spec):
    for name, target in degenerate():
        for (kind, logits), progress in product(predictions(target).items(), (0.0, 1.0)):
            loss, gradient = evaluate(spec, logits, target, VOID, progress)
            assert loss.isfinite() and gradient.isfinite().all(), (name, kind, progress)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(name, dtype):
    size = (300, 300) if name in SLOW else (512, 512)
    target = torch.zeros(1 if name in SLOW else 2, *size, dtype=torch.uint8)
    target[:, 40:120, 50:90] = 1
    logits = torch.randn(len(target), 2, *size, generator=torch.Generator().manual_seed(0)).to(dtype)
    supplied = needs(target[:1], 2)
    supplied["distance_map"] = supplied["distance_map"].expand(len(target), -1, -1, -1)
    half = get_loss(name)(logits, target, **supplied)
    full = get_loss(name)(logits.float(), target, **supplied)
    assert half.dtype == torch.float32
    assert half.isfinite()
    assert torch.equal(half, full)


@pytest.mark.parametrize("name", PRESETS)
def test_autocast_leaves_the_loss_in_float32(name):
    logits, target = case(2, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside, _ = evaluate(name, logits, target)
    outside, _ = evaluate(name, logits, target)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("name", sorted(set(PRESETS) - ON_PROCESSOR))
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_over_models_equals_the_loop(name, shared):
    models = [case(2, (6, 6), seed=seed, dtype=torch.float32) for seed in range(3)]
    targets = [models[0][1] if shared else target for _, target in models]
    supplied = [needs(target, 2) for target in targets]
    for one in supplied:
        one["class_frequency"] = supplied[0]["class_frequency"]
    loss = get_loss(name)

    def one_model(z, target, maps):
        more = dict(supplied[0], distance_map=maps)
        return loss(z, target, ignore_index=VOID, **more)

    logits = torch.stack([z for z, _ in models])
    maps = torch.stack([s["distance_map"] for s in supplied])
    gradients, values = torch.func.vmap(torch.func.grad_and_value(one_model))(
        logits, torch.stack(targets), maps
    )
    looped = logits.clone().requires_grad_()
    each = [one_model(looped[k], targets[k], maps[k]) for k in range(3)]
    (expected,) = torch.autograd.grad(sum(each), looped)  # the sum trick: gradients of the models do not mix
    assert torch.allclose(values, torch.stack(each), rtol=1e-5, atol=1e-6)
    assert torch.allclose(gradients, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spec", sorted(spec for spec in VARIANTS if spec.split("(")[0] not in ON_PROCESSOR))
def test_a_loss_stays_on_its_device_and_never_looks_at_the_data(spec):
    logits = torch.zeros(
        2, 3, 8, 8, device="meta", requires_grad=True
    )  # any other device, and any .item(), raises here
    target = torch.zeros(2, 8, 8, dtype=torch.long, device="meta")
    supplied = {
        "distance_map": torch.zeros(2, 3, 8, 8, device="meta"),
        "class_frequency": torch.zeros(3, device="meta"),
        "progress": 0.5,
    }
    loss = get_loss(spec)(logits, target, ignore_index=VOID, **supplied)
    loss.backward()
    assert loss.shape == ()


@pytest.mark.parametrize(
    "name", ["ce", "focal", "dice", "generalized_dice", "lovasz", "topk_ce", "ce_kl", "unified_focal", "svls"]
)
def test_a_loss_compiles_into_one_graph(name):
    logits, target = case(2, dtype=torch.float32)
    loss = load_function(losses()[name])
    torch._dynamo.reset()  # or the ninth loss meets the recompilation limit
    compiled = torch.compile(lambda z, y: loss(z, y, ignore_index=VOID), fullgraph=True, backend="eager")
    assert torch.allclose(compiled(logits, target), loss(logits, target, ignore_index=VOID))


def test_a_nan_in_one_model_does_not_touch_the_others():
    logits, target = case(2, dtype=torch.float32)
    stack = torch.stack([logits, torch.full_like(logits, float("nan")), logits]).requires_grad_()
    (gradient,) = torch.autograd.grad(sum(get_loss("dice_ce")(z, target) for z in stack), stack)
    assert torch.equal(gradient[0], gradient[2])
    assert gradient[0].isfinite().all()
    assert gradient[1].isnan().any()


# Of free pixels rmi moves the largest of nine, and is content with any linear image of the truth.
@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"rmi"}))
def test_descending_the_loss_finds_the_target(name):
    target = torch.zeros(2, 16, 16, dtype=torch.long)
    target[0, 4:12, 5:12] = 1
    target[1, 2:6, 8:14] = 1
    supplied = needs(target, 2)
    logits = (0.1 * torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    loss = get_loss(name)
    for step in range(200):
        optimizer.zero_grad()
        loss(logits, target, **dict(supplied, progress=step / 200)).backward()
        optimizer.step()
    found = logits.detach().argmax(1)
    assert 2 * float((found * target).sum()) / float((found + target).sum()) > 0.95


@pytest.mark.parametrize("name", [n for n in PRESETS if losses()[n].meta["penalises_empty"]])
def test_losses_that_claim_it_push_false_positives_down_on_empty_images(name):
    target = torch.zeros(2, 8, 8, dtype=torch.long)
    logits = torch.zeros(2, 2, 8, 8)
    logits[:, 1] = -3.0
    logits[:, 1, 2:5, 2:5] = 1.0
    _, gradient = evaluate(name, logits, target)
    assert (gradient[:, 1, 2:5, 2:5] > 0).float().mean() > 0.4  # top-k and Lovász push the worst only


def test_batch_dice_penalises_false_positives_beside_an_image_with_the_class():
    target = torch.zeros(2, 8, 8, dtype=torch.long)
    target[0, 2:5, 2:5] = 1
    logits = torch.zeros(2, 2, 8, 8)
    _, batch = evaluate("batch_dice", logits, target)
    _, sample = evaluate("dice", logits, target)
    assert float(batch[1].abs().sum()) > 1e-3 > 1e-6 > float(sample[1].abs().sum())


def test_any_integer_type_of_target_gives_the_same_loss():
    logits, target = case(3, dtype=torch.float32)
    for name in ("ce", "dice", "focal", "lovasz", "wasserstein_dice", "topk_ce"):
        expected, _ = evaluate(name, logits, target)
        for dtype in (torch.uint8, torch.int32, torch.int16):
            assert torch.equal(get_loss(name)(logits, target.to(dtype), **needs(target, 3)), expected), (
                name,
                dtype,
            )
