"""`lossbench check` shows what is wrong with a loss, whatever it does, and never a traceback."""

import pytest

from lossbench.base.check import render
from lossbench.base.errors import UserError
from lossbench.losses import contract
from tests.command import lossbench

BROKEN = """
import torch
from lossbench import loss

@loss("good", penalises_empty=True)
def good(logits, target, *, ignore_index=None):
    z = logits if logits.dtype == torch.float64 else logits.float()
    if ignore_index is None:
        return torch.nn.functional.cross_entropy(z, target)
    total = torch.nn.functional.cross_entropy(z, target, ignore_index=ignore_index, reduction="sum")
    return total / (target != ignore_index).sum().clamp_min(1)

@loss("nan_on_empty")
def nan_on_empty(logits, target):
    p, g = logits.softmax(1)[:, 1], (target == 1).float()
    return 1 - (p * g).sum() / g.sum()

@loss("deaf_to_void")
def deaf_to_void(logits, target, *, ignore_index=None):
    p, g = logits.softmax(1)[:, 1], (target == 1).float()
    return 1 - (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1)

@loss("one_per_image")
def one_per_image(logits, target):
    return logits.softmax(1)[:, 1].mean((1, 2))

@loss("a_number")
def a_number(logits, target):
    return 0.5

@loss("detached")
def detached(logits, target):
    return logits.detach().mean()

@loss("raises")
def raises(logits, target):
    raise ValueError("no [idea] what to do\\nsecond line")

@loss("upside_down")
def upside_down(logits, target, *, progress, class_frequency, distance_map):
    p, g = logits.softmax(1)[:, 1], (target == 1).float()
    unused = 0 * progress + 0 * class_frequency[0] + 0 * distance_map.sum()
    return (2 * (p * g).sum() + 1) / (p.sum() + g.sum() + 1) + unused

@loss("overflows")
def overflows(logits, target):
    p, g = logits.softmax(1)[:, 1], (target == 1).to(logits.dtype)
    both, all_p = torch.cumsum((p * g).flatten(), 0)[-1], torch.cumsum((p + 0.9).flatten(), 0)[-1]
    return 1 - (2 * both + 1) / (all_p + g.sum() + 1)

@loss("writes")
def writes(logits, target):
    target[:, 0] = 0
    return torch.nn.functional.cross_entropy(logits.float(), target)

@loss("wrong_gradient")
def wrong_gradient(logits, target):
    p, g = logits.softmax(1)[:, 1], (target == 1).float()
    return torch.nn.functional.cross_entropy(logits, target) + (p.mean().detach() - g.mean()) ** 2

@loss("claims", penalises_empty=True)
def claims(logits, target):
    p, g = logits.softmax(1)[:, 1], (target == 1).float()
    return 1 - (2 * (p * g).sum() + 1e-5) / (p.sum() + g.sum() + 1e-5)

@loss("order_matters")
def order_matters(logits, target):
    cost = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return (cost.flatten(1).mean(1) * torch.arange(1.0, len(cost) + 1)).mean()

@loss("of_images")
def of_images(logits, target):
    n, c, height, width = logits.shape
    return torch.nn.functional.cross_entropy(logits.float(), target)

@loss("chatty")
def chatty(logits, target):
    print("shape", tuple(logits.shape))
    return torch.nn.functional.cross_entropy(logits.float(), target)

@loss("not_for_empty")
def not_for_empty(logits, target):
    if not (target == 1).any():
        raise ValueError(f"nothing in {tuple(logits.shape)}")
    return torch.nn.functional.cross_entropy(logits.float(), target)

@loss("unsettles")
def unsettles(logits, target):
    torch.set_default_dtype(torch.float64)
    return torch.nn.functional.cross_entropy(logits.float(), target)

@loss("patches")
def patches(logits, target):
    torch.nn.functional.softmax = max
    return torch.nn.functional.cross_entropy(logits.float(), target)

@loss("two_classes")
def two_classes(logits, target):
    if logits.shape[1] != 2:
        raise NotImplementedError("binary only")
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return torch.nn.functional.cross_entropy(logits, target)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("user") / "my_losses.py"
    path.write_text(BROKEN)
    return path


def failed(file, name):
    report = contract.run(name, [file])
    assert not report.passed
    return {row.test: row for row in report.rows if row.passed is False}


def test_a_sound_user_loss_passes(file):
    report = contract.run("good", [file])
    assert report.passed, [row for row in report.rows if row.passed is False]
    assert {"reduction", "cost, forward and backward"} <= {row.test for row in report.rows}


@pytest.mark.parametrize(
    ("name", "test", "words"),
    [
        ("nan_on_empty", "finite: all background", "the value not finite"),
        ("deaf_to_void", "void pixels count for nothing", "largest gradient there"),
        (
            "one_per_image",
            "is a scalar that depends on the logits",
            "returned a tensor of shape (2,) instead of a scalar",
        ),
        ("a_number", "is a scalar that depends on the logits", "returned a float instead of a scalar tensor"),
        ("detached", "is a scalar that depends on the logits", "without gradient"),
        ("raises", "is a scalar that depends on the logits", "no [idea] what to do (my_losses.py:"),
        ("upside_down", "descending it finds the target", "is the sign right?"),
        ("overflows", "float16 logits, 300 × 300", "compute in float32 inside"),
        ("writes", "same input, same value; the inputs stay as they are", "it writes into its inputs"),
        ("wrong_gradient", "gradient equals finite differences in float64", "allowed are 1e-05"),
        ("claims", "pushes false positives down on empty images", "it claims penalises_empty=True"),
        ("order_matters", "the order of the images does not matter", ""),
    ],
)
def test_a_broken_loss_fails_the_row_that_names_its_fault(file, name, test, words):
    rows = failed(file, name)
    assert test in rows, rows
    assert words in rows[test].note
    assert "\n" not in rows[test].note


def test_a_loss_that_returns_no_scalar_is_told_so_once(file):
    assert len(contract.run("one_per_image", [file]).rows) == 1


def test_a_loss_for_two_classes_is_not_failed_for_a_third(file):
    report = contract.run("two_classes", [file])
    assert report.passed, [row for row in report.rows if row.passed is False]
    (row,) = [row for row in report.rows if row.test == "finite: three classes"]
    assert row.passed is None
    assert row.note.startswith("two classes only")


def test_a_loss_for_images_is_not_failed_for_signals_and_told_how_to_say_so(file):
    rows = {row.test: row for row in contract.run("cldice").rows}
    assert rows["1-D signals"].note.startswith("cldice is for 2-D and 3-D images")
    assert rows["3-D volumes"].passed
    rows = {row.test: row for row in contract.run("of_images", [file]).rows}
    assert rows["1-D signals"].passed is rows["3-D volumes"].passed is None
    assert "@loss(..., dims=(2,))" in rows["3-D volumes"].note


def test_the_reduction_is_measured():
    measured = {}
    for spec in ("dice", "batch_dice", "ce"):
        (measured[spec],) = [row.measured for row in contract.run(spec).rows if row.test == "reduction"]
    assert measured == {"dice": "mean over images", "batch_dice": "over the batch", "ce": "mean over images"}


def test_the_table_renders_brackets_and_says_the_verdict(file):
    from rich.console import Console

    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(contract.run("raises", [file])))
    console.print(render(contract.run("dice(classes=[1])")))
    text = console.export_text()
    assert "raises  fails" in text
    assert "no [idea] what to do" in text
    assert "dice(classes=[1])  passes" in text


def test_what_a_loss_prints_is_told_once(file, capsys):
    (row,) = [row for row in contract.run("chatty", [file]).rows if row.test == "prints"]
    assert row.passed is None and int(row.measured.split()[0]) > 50
    assert row.note == "the first: shape (2, 2, 16, 16)"
    assert capsys.readouterr().out == ""


def test_an_error_of_one_line_is_shown_once_for_all_tests_that_it_ends(file):
    report = contract.run("not_for_empty", [file])
    alike = [row for row in report.rows if row.measured == "ValueError"]
    (column,) = [list(c.cells) for c in render(report).columns if c.header == "note"]
    (note,) = [note for note in column if "nothing in" in note]
    assert len(alike) > 2 and f"; the same in {len(alike) - 1} more tests: {alike[1].test}, " in note
    assert len(column) == len(report.rows) - len(alike) + 1


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("good", 0, "unchanged"),
        ("unsettles", 0, "the default dtype; a sweep sets that back at every call"),
        ("patches", 1, "'patches' replaces torch.nn.functional.softmax, which other code calls"),
    ],
)
def test_the_command_says_what_a_loss_changes_of_its_process(file, monkeypatch, name, code, words):
    import torch

    from lossbench.sweep import guard

    monkeypatch.setenv("COLUMNS", "300")
    guard.fresh.cache_clear()  # other tests may have changed this process, too
    before = torch.nn.functional.softmax
    out = lossbench(file.parent, "check", name, "--with", file.name, code=code)
    (line,) = [line for line in out.splitlines() if "leaves its process as it is" in line]
    assert words in line
    assert torch.get_default_dtype() == torch.float32 and torch.nn.functional.softmax is before


def test_a_claim_is_made_for_the_defaults_only():
    assert contract.run("boundary(schedule='alone')").passed


@pytest.mark.peers
def test_a_peer_is_checked_and_says_what_it_is_not_made_for():
    pytest.importorskip("segmentation_models_pytorch", reason="the extra 'peers' is not installed")
    report = contract.run("smp:MCCLoss")
    assert report.passed
    (row,) = [row for row in report.rows if row.test == "finite: three classes"]
    assert "is for two classes" in row.note


def test_a_function_that_takes_wrong_calls_fails_the_row_that_lists_them():
    def careless(logits, target, ignore_index=None, progress=None):
        return logits.softmax(1)[:, 1].mean()

    (row,) = contract.refusals(contract.Subject("careless", careless, (), True, None))
    assert row.passed is False
    assert row.measured == "0 of 10"
    assert {"a 0/255 mask", "numpy arrays", "an unknown keyword"} <= set(row.note.split(", "))


def test_an_unreadable_spec_is_the_users_mistake():
    with pytest.raises(UserError, match="unknown loss 'dise'; did you mean 'dice'"):
        contract.run("dise")


def test_checking_leaves_the_random_state_alone():
    import torch

    before = torch.get_rng_state()
    contract.run("dice")
    assert torch.equal(before, torch.get_rng_state())
