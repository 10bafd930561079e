"""A step is a fixed list of operations on the device, so that it may be replayed; what is no such list is not
replayed.

A tape records and replays on a processor what a CUDA graph does on a card; tensors without contents stand for
those of a card."""

import copy
import dataclasses
import functools
import math
from unittest import mock

import numpy as np
import pytest
import torch
from tape import Tape
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lossbench.catalogue import registry
from lossbench.catalogue.registry import get_dataset, get_loss
from lossbench.experiment.cells import Cell, Recipe
from lossbench.networks.initial import weights_hash
from lossbench.networks.stack import Stack
from lossbench.sweep import train_stack
from lossbench.training import graphs
from lossbench.training import step as steps
from lossbench.training import train as training
from lossbench.training.batches import Draws, Images
from lossbench.training.blocks import Block, Job, blocks_of, network_of
from lossbench.training.step import Constants, Step
from lossbench.training.train import train

SPEC = "scenes(foreground=0.1, noise=0.4, size=32, n_train=12, n_val=6, n_test=8)"
FOUR = "scenes(classes=4, foreground=0.2, size=32, n_train=12, n_val=6, n_test=8)"
SOLID = "scenes(dims=3, foreground=0.1, size=16, n_train=4, n_val=2, n_test=2)"
NOT_REPLAYED = {
    "boundary",
    "gen_surface",
    "ce_to_dice",
    "hausdorff_dt",
    "log_hausdorff_dt",
    "skeleton_recall",
    "blob",
    "cc_dice_ce",
}  # a schedule in three, forms of masks looked at on the processor in the others
NO_GPU = "there is no GPU here"


SHORT = Recipe(steps=30, batch=4, widths=(4, 8), validations=3)


def job(loss, seed=0, spec=SPEC, rate=None, recipe=SHORT):
    cell = Cell.of(spec, loss, seed, recipe)
    cell = dataclasses.replace(cell, learning_rate=rate or cell.learning_rate)
    return Job(cell, get_dataset(spec, seed), get_loss(cell.loss, check=False))


def own(function):
    return dataclasses.replace(job("ce"), loss=function)


def waits(logits, target, **_):
    return logits.mean() * (2 if float(logits.detach().mean()) > 0 else 1)


def branches(logits, target, **_):
    return (
        logits[target > 0].square().mean() if logits.ndim == 3 else logits.square()[:, 0][target > 0].mean()
    )


def counts(logits, target, seen=[], **_):  # noqa: B006
    seen.append(1)
    return logits.square().mean() * len(seen)


def constant(logits, target, **_):
    weights = torch.tensor([0.2, 0.8], device=logits.device)
    return torch.nn.functional.cross_entropy(logits, target, weights)


@pytest.mark.parametrize("name", sorted(registry.losses()))
@pytest.mark.parametrize("spec", [SPEC, FOUR])
def test_native_losses_are_fixed_lists_of_operations(name, spec):
    assert bool(graphs.replay(stepping([job(name, spec=spec), job("ce", spec=spec)]), Tape)) == (
        name not in NOT_REPLAYED
    )


@pytest.mark.parametrize(
    "text",
    ["ce(weights=[0.3, 0.7])", "focal(alpha=[0.3, 0.7])", "wasserstein_dice(distances=[[0, 1], [1, 0]])"],
)
def test_numbers_given_as_parameters_are_no_hindrance(text):
    assert graphs.replay(stepping([job(text), job("dice")]), Tape)


def test_numbers_of_python_are_brought_to_the_device_once():
    with Constants() as kept:
        first, second = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])
        assert torch.zeros(2).new_tensor([3, 4]).dtype == torch.float32
        assert torch.tensor([1, 2]).dtype == torch.int64  # other numbers, though equal
        assert (
            first.to(torch.float64).dtype == torch.float64 and first.to(torch.zeros(1)).dtype == torch.float32
        )
        assert len(kept.kept) == 5
        first += 1
        assert second.tolist() == [1.0, 2.0] == torch.tensor([1.0, 2.0]).tolist()
        assert torch.tensor([math.nan, -0.0]).isnan().tolist() == [True, False]


@pytest.mark.parametrize("wrap", [np.float32, torch.tensor])
def test_what_may_change_behind_its_name_is_made_anew(wrap):
    """Long arrays, and tensors that differ in the fifth digit, look alike when printed."""
    for number in (0.12341, 0.12344):
        alone, field = wrap(number), np.zeros((64, 64), np.float32)
        field[30] = number
        with Constants() as kept:
            assert float(torch.as_tensor([alone, 1.0])[0]) == pytest.approx(number, abs=1e-7)
            assert float(torch.tensor(field).sum()) == pytest.approx(64 * number, rel=1e-5)
            assert float(torch.tensor([list(field[30]), list(field[0])]).sum()) == pytest.approx(
                64 * number, rel=1e-5
            )
            assert not kept.kept


@pytest.mark.parametrize("function", [waits, branches, counts])
def test_what_is_no_fixed_list_of_operations_is_not_replayed(function):
    step = stepping([own(function), job("ce")])
    before = [value.clone() for value in step.state]
    assert graphs.replay(step, Tape) is None
    assert (
        not step.errors
        and not step.dead
        and all(torch.equal(value, old) for value, old in zip(step.state, before, strict=True))
    )
    step(0)
    assert not step.errors
    assert graphs.replay(stepping([own(constant), job("ce")]), Tape)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("operation not permitted when stream is capturing"), torch.OutOfMemoryError("full")],
)
def test_training_goes_on_as_if_nothing_had_been_where_recording_is_refused(error, monkeypatch):
    jobs = [job("dice"), job("ce")]
    plain = train(jobs)

    def refuse(call):
        call()
        raise error

    replay = graphs.replay
    monkeypatch.setattr(graphs, "replay", lambda step: replay(step, refuse))
    for one, other in zip(plain, train(jobs), strict=True):
        assert weights_hash(one.weights) == weights_hash(other.weights) and one.train_loss == other.train_loss


def test_a_full_memory_is_not_the_fault_of_a_loss():
    def hungry(logits, target, **_):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        train([own(hungry), job("ce")])
    assert train_stack.step_seconds([own(hungry), job("ce")], "cpu", 2) is None


@pytest.mark.parametrize(
    ("jobs", "settings"),
    [
        ([("dice",), ("ce",)], {}),
        ([("dice",), ("ce", 1), ("focal", 1, SPEC, 0.001)], {"clip": 0.05}),
        ([("dice",), ("lovasz",)], {"augment": "full", "schedule": "poly"}),
        ([("dice_ce", 0, FOUR), ("dice_all", 1, FOUR)], {"optimizer": "sgd", "augment": "none"}),
        ([("ce", 0, SOLID), ("dice", 0, SOLID)], {"batch": 2}),
        ([("ce",)], {"stacked": False, "precision": "bfloat16"}),
    ],
)
def test_replayed_training_is_the_same_bit_for_bit(jobs, settings, monkeypatch):
    recipe = SHORT.model_copy(update=settings)
    jobs = [job(*facts, recipe=recipe) for facts in jobs]
    told = []
    plain = train(jobs, on_step=lambda step, losses: told.append((step, losses)))
    tapes = []
    replay = graphs.replay
    monkeypatch.setattr(
        graphs, "replay", lambda step: replay(step, lambda call: tapes.append(Tape(call)) or tapes[-1])
    )
    monkeypatch.setattr(steps, "nullcontext", Constants)  # as on a card
    monkeypatch.setattr(training, "reading", lambda device: 7)
    late = []
    again = train(jobs, on_step=lambda step, losses: late.append((step, losses)))
    assert len(tapes) == 1 and len(tapes[0].entries) > 50
    assert late == told
    for one, other in zip(plain, again, strict=True):
        assert weights_hash(one.weights) == weights_hash(other.weights)
        assert one.train_loss == other.train_loss and one.grad_norm == other.grad_norm
        assert repr(one.curves) == repr(other.curves)
        assert repr(one.scores) == repr(other.scores)


def test_what_happened_first_counts_though_losses_are_read_late(monkeypatch):
    def at(number, raises):
        calls = []

        def loss(logits, target, **_):
            calls.append(1)
            if len(calls) > number and raises:
                raise ValueError("late")
            return logits.square().mean() * (math.nan if len(calls) == number else 1)

        return own(loss)

    monkeypatch.setattr(training, "reading", lambda device: 7)
    first, then, _ = train([at(3, True), at(99, False), job("dice")])
    assert first.not_finite_at == 3 and first.error is None and len(first.train_loss) == 3
    assert then.error is None and len(then.train_loss) == 30

    def fails(logits, target, seen, **_):
        seen.append(1)
        return logits.square().mean() if len(seen) < 6 else {}["nothing"]

    for beside in ([job("dice")], []):
        late, *_ = train([own(functools.partial(fails, seen=[])), *beside])
        step = 6 if beside else 4  # a lone cell is trained twice: calls 1, 3, 5 and 7
        assert late.error == f"KeyError in step {step}: 'nothing'" and len(late.train_loss) == step - 1


def test_a_cell_that_turns_not_finite_is_seen_at_its_step_though_losses_are_read_late(monkeypatch):
    def bursts(logits, target, **_):
        return logits.square().mean() * torch.where(logits.square().mean() > 0, math.nan, 1.0)

    monkeypatch.setattr(training, "reading", lambda device: 7)
    late, beside = train([own(bursts), job("dice")])
    assert late.not_finite_at == 1 and len(late.train_loss) == 1
    assert weights_hash(beside.weights) == weights_hash(train([job("ce"), job("dice")])[1].weights)


@pytest.mark.parametrize("beside", ["ce", "nan"])
def test_a_recording_that_leaves_something_else_is_thrown_away(beside):
    """Also beside a cell whose weights are no numbers."""
    ruined = own(lambda logits, target, **_: logits.mean() * math.nan)
    step = stepping([job("dice"), job("ce") if beside == "ce" else ruined])
    before = [value.clone() for value in step.state]

    def frozen(call):
        tape = Tape(call)
        tape.entries = [
            entry
            for entry in tape.entries
            if entry[0] is not torch.ops.aten.add_.Tensor or entry[1][0] is not step.counter
        ]
        return tape  # the counter stands still

    def shifted(call):
        tape = Tape(call)
        return lambda: (tape(), step.stack.values.add_(1.0) if int(step.counter) == 2 else None)

    for record in (frozen, shifted, lambda call: lambda: None):
        assert graphs.replay(step, record) is None
    assert all(torch.equal(value, old) for value, old in zip(step.state, before, strict=True))
    assert graphs.replay(step, Tape)


def stepping(jobs, blocks=None, device="cpu"):
    blocks = blocks or blocks_of(jobs, device)
    starts = [blocks[own.cell.block].start for own in jobs]
    stack = Stack(network_of(jobs[0]), starts, device, jobs[0].cell.recipe.precision)
    if device != "cpu" and not torch.cuda.is_available():
        stack.draws = False  # a card that is not there has no generator to tell by
    step = Step(stack, jobs, blocks)
    step.aside = Constants()  # as on a card
    return step


class Watch(TorchDispatchMode):
    """Refuses to bring numbers from the processor to the card or back, single ones apart: those go with the
    operation.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        devices = {
            t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor) and t.ndim
        }
        result = function(*args, **(kwargs or {}))
        if (
            len(
                devices
                | {t.device.type for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.ndim}
            )
            > 1
        ):
            raise RuntimeError(f"{function} moves numbers between devices")
        return result


@pytest.mark.parametrize(
    ("losses", "spec", "settings"),
    [
        (
            sorted(set(registry.losses()) - NOT_REPLAYED | {"ce_to_dice"}),
            SPEC,
            {},
        ),  # those wait, and are not replayed
        (
            [
                "ce(weights=[0.3, 0.7])",
                "focal(alpha=[0.3, 0.7])",
                "wasserstein_dice(distances=[[0, 1], [1, 0]])",
            ],
            SPEC,
            {},
        ),
        (["ce", "dice"], FOUR, {"augment": "full", "clip": 1.0}),
        (["ce", "dice"], SOLID, {"batch": 2, "optimizer": "sgd"}),
    ],
)
def test_nothing_of_a_step_lies_on_the_processor_or_waits_for_a_card(losses, spec, settings):
    """Tensors without contents on a card that need not be there: mixing devices, moving between them and
    asking for a value are errors. Gradients are left out."""
    recipe = SHORT.model_copy(update=settings)
    jobs = [job(loss, spec=spec, recipe=recipe) for loss in losses]
    here = blocks_of(jobs, "cpu")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:

        def on_card(value):
            if isinstance(value, torch.Tensor):
                return mode.from_tensor(value).to("cuda")
            if isinstance(value, Images):
                moved = copy.copy(value)
                vars(moved).update({name: on_card(part) for name, part in vars(value).items()})
                return moved
            if isinstance(value, Block | Draws):
                return type(value)(
                    **{field.name: on_card(getattr(value, field.name)) for field in dataclasses.fields(value)}
                )
            return {name: on_card(part) for name, part in value.items()} if isinstance(value, dict) else value

        step = stepping(jobs, {key: on_card(block) for key, block in here.items()}, "cuda")
        with mock.patch.object(torch.Tensor, "backward", lambda self, gradient=None: None):
            step(0)
            with Watch():
                step(1)
        assert step.errors == {}
        assert {
            value.device.type
            for value in (*step.state, step.losses, step.norms, *step.gradients, *step.targets)
        } == {"cuda"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_a_card_replays_what_it_trains_and_does_not_wait():
    recipe = SHORT.model_copy(update={"steps": 40})
    jobs = [job("dice", recipe=recipe), job("ce", recipe=recipe), job("focal", 1, recipe=recipe)]
    with graphs.own_stream("cuda"):
        assert graphs.replay(stepping(jobs, device="cuda")) is not None
    with mock.patch.object(graphs, "replay", lambda step: None):
        plain = train(jobs, device="cuda")
    replayed = train(jobs, device="cuda")
    for one, other in zip(plain, replayed, strict=True):
        assert other.train_loss[:5] == pytest.approx(one.train_loss[:5], rel=1e-3)
        assert other.train_loss[-1] < other.train_loss[0]
    step = stepping(jobs, device="cuda")
    step(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for done in range(1, 5):
            step(done)
    finally:
        torch.cuda.set_sync_debug_mode("default")
