"""Classes that do not exclude each other, and shares of classes: a loss that takes them keeps the contract,
also one of a user.
"""

import pytest
import torch
from loss_cases import PRESETS, VOID

from lossbench.base.errors import UserError
from lossbench.catalogue.registry import get_loss, losses
from lossbench.losses import contract

OF_EXCLUSIVE = {"distance_map", "class_frequency"}  # these are of classes that exclude each other
TAKES = [name for name in PRESETS if not OF_EXCLUSIVE & {*losses()[name].needs}]
PEERS = ["torch:CrossEntropyLoss", "0.5*ce + 0.5*torch:CrossEntropyLoss"]
GIVEN = {"progress": 0.5}


def case(size=(8, 8), images=2, seed=0):
    """Logits of three labels and a target in which pixels have none, one or several of them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, 3, *size, generator=generator, dtype=torch.float64)
    target = (torch.rand(images, 3, *size, generator=generator) < 0.4).long()
    # Of each label there are pixels with it and without.
    target.flatten(2)[..., :2] = torch.tensor([0, 1])
    return logits, target


def several(name, files=()):
    return get_loss(name, files, multilabel=True)


def evaluate(loss, logits, target, **given):
    z = logits.detach().clone().requires_grad_()
    value = loss(z, target, **GIVEN | given)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach(), gradient


def test_a_loss_takes_several_labels_or_says_why_not():
    for name in {*PRESETS} - {*TAKES}:
        with pytest.raises(
            UserError, match=rf"^{name} needs .*=\.\.\., which there is for classes that exclude"
        ):
            several(name)


@pytest.mark.parametrize("size", [(8, 8), (5, 6, 4)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("name", [*TAKES, *PEERS])
def test_it_is_one_number_with_a_finite_gradient_for_each_label(name, size):
    logits, target = case(size)
    value, gradient = evaluate(several(name), logits, target)
    assert value.shape == () and value.isfinite()
    assert gradient.shape == logits.shape and gradient.isfinite().all()
    assert all(gradient[:, label].any() for label in range(3))


@pytest.mark.parametrize("name", [*TAKES, *PEERS])
def test_it_is_the_mean_of_the_losses_of_each_label_alone(name):
    logits, target = case()
    value, gradient = evaluate(several(name), logits, target)
    alone = []
    for label in range(3):
        z, y = logits[:, label : label + 1], target[:, label]
        # Of two classes, one of which has the logit 0.
        one, slope = evaluate(get_loss(name), torch.cat([torch.zeros_like(z), z], 1), y)
        alone.append(one)
        torch.testing.assert_close(3 * gradient[:, label], slope[:, 1])
    torch.testing.assert_close(value, torch.stack(alone).mean())


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf, 9.0])
@pytest.mark.parametrize("name", [*TAKES, *PEERS])
def test_what_is_void_for_a_label_enters_nothing(name, wrong):
    logits, target = case()
    # Each label has void pixels of its own.
    void = torch.zeros_like(target, dtype=torch.bool)
    void[:, 0, :2], void[:, 1, :, 6:] = True, True
    target[void] = VOID
    loss, results = several(name), []
    for z in (logits, torch.where(void, wrong, logits)):
        results.append(evaluate(loss, z, target, ignore_index=VOID))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1]) and not results[0][1][void].any()
    assert results[0][1][:, 0, 2:].any()


@pytest.mark.parametrize("name", [*TAKES, *PEERS])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y * 2, "label 2 with 2 classes"),
        (lambda y: -y, "label -1 with 2 classes"),
        (lambda y: y * 255, "label 255 with 2 classes: a 0/255 mask"),
        (lambda y: y.double(), r"several labels takes a target of whole numbers, 0 and 1; target.long\(\)"),
        (lambda y: y[:, 0], r"of one shape, \(N, C, \*S\)"),
    ],
)
def test_a_target_of_other_labels_is_refused(name, change, words):
    logits, target = case()
    with pytest.raises(UserError, match=words):
        several(name)(logits, change(target), **GIVEN)


@pytest.mark.parametrize("name", [*TAKES, *PEERS])
def test_the_right_prediction_is_nearer_to_the_minimum_than_wrong_ones(name):
    _, target = case((12, 12), seed=1)
    sure = 2.0 * target.double() - 1
    loss = several(name)

    def best(direction):
        # Losses that ask for honest probabilities have their minimum at small logits.
        return min(float(loss(scale * direction, target, **GIVEN)) for scale in (0.5, 1, 2, 4, 8))

    right = best(sure)
    flipped = sure.clone()
    flipped[:, 0, 3:9, 3:9] *= -1
    for wrong in (-sure, -torch.ones_like(sure), torch.ones_like(sure), flipped, sure.flip(1)):
        assert right < best(wrong)


USER = """
import torch
from torch.nn import functional
from lossbench import loss

def shares_of(logits, target):
    if target.is_floating_point():
        return target
    ids = torch.arange(logits.shape[1]).view(-1, *[1] * (target.ndim - 1))
    return (target.unsqueeze(1) == ids).to(logits.dtype)

@loss("squares", soft=True)
def squares(logits, target, *, ignore_index=None):
    z = logits if logits.dtype == torch.float64 else logits.float()
    z = torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z
    shares = shares_of(z, target)
    known = shares.sum(1)
    return (((z.softmax(1) - shares) ** 2).sum(1) * known).sum() / known.sum().clamp_min(1)

@loss("plain")
def plain(logits, target):
    return functional.cross_entropy(logits.float(), target.long())

@loss("shares_alone", soft=True)
def shares_alone(logits, target, *, ignore_index=None):
    return -(target * logits.log_softmax(1)).sum(1).mean()

@loss("void_counts", soft=True)
def void_counts(logits, target, *, ignore_index=None):
    z = logits if logits.dtype == torch.float64 else logits.float()
    return ((z.softmax(1) - shares_of(z, target)) ** 2).sum(1).mean()
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("user") / "soft_losses.py"
    path.write_text(USER)
    return path


def test_a_soft_loss_of_ones_own_keeps_the_contract(file):
    report = contract.run("squares", [file])
    rows = {row.test: row for row in report.rows}
    assert report.passed, [row for row in report.rows if row.passed is False]
    asked = ("class ids give what their shares give", "finite: shares of two raters")
    for test in (*asked, "void shares count for nothing", "NaN under void shares enters nothing"):
        assert rows[test].passed, test
    # Of a loss that takes class ids alone nothing is asked.
    assert not {*asked} & {row.test for row in contract.run("ce").rows}


@pytest.mark.parametrize(
    ("name", "test", "words"),
    [
        ("shares_alone", "class ids give what their shares give", "one-hot"),
        ("void_counts", "void shares count for nothing", "largest gradient there"),
    ],
)
def test_a_soft_loss_that_takes_one_target_for_the_other_is_told_so(file, name, test, words):
    rows = {row.test: row for row in contract.run(name, [file]).rows}
    assert rows[test].passed is False
    assert words in rows[test].note


def test_a_loss_of_ones_own_takes_class_ids_shares_and_several_labels(file):
    loss = get_loss("squares", [file])
    # As many images as classes and pixels a side: a wrong broadcast would be silent.
    logits = torch.randn(3, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    ids = (torch.arange(27).reshape(3, 3, 3) * 7) % 3
    hot = torch.nn.functional.one_hot(ids, 3).movedim(-1, 1).float()
    expected = ((logits.softmax(1) - hot) ** 2).sum(1).mean()
    torch.testing.assert_close(loss(logits, ids), expected)
    torch.testing.assert_close(loss(logits, hot), expected)
    # Of the two classes [0, z]: (1 - p - (1 - y))^2 + (p - y)^2 = 2 (p - y)^2.
    z, labels = case()
    value = several("squares", [file])(z, labels)
    torch.testing.assert_close(value, (2 * (z.sigmoid() - labels) ** 2).mean())
    # A loss that makes a softmax of what it gets is given both classes.
    binary = torch.nn.functional.binary_cross_entropy_with_logits(z.float(), labels.float())
    torch.testing.assert_close(several("plain", [file])(z, labels), binary)


def test_a_loss_of_a_notebook_keeps_what_its_decorator_says():
    from lossbench import loss

    @loss("of_a_notebook", soft=True, dims=(2,))
    def of_a_notebook(logits, target):
        return -(target * logits.log_softmax(1)).sum(1).mean()

    logits, shares = torch.zeros(2, 2, 4, 4), torch.full((2, 2, 4, 4), 0.5)
    assert float(get_loss("of_a_notebook")(logits, shares)) == pytest.approx(0.6931472)
    with pytest.raises(UserError, match="of_a_notebook is for 2-D images"):
        get_loss("of_a_notebook")(logits[..., None], shares[..., None])
