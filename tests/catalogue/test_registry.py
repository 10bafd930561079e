"""Losses are known from their source without running it."""

import subprocess
import sys

import pytest
import torch

from lossbench import loss, network
from lossbench.base.errors import UserError
from lossbench.catalogue.registry import aliases, get_loss, get_network, losses, parse_loss

OWN = """
from lossbench import loss

def helper(x):
    return x * 2.0

@loss("mine", family="user", cite="me")
def mine(logits, target, *, power=2.0, ignore_index=None):
    p = logits.softmax(1)[:, 1]
    return helper((p - (target == 1).float()).abs() ** power).mean()
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "my_loss.py"
    path.write_text(OWN)
    return path


def test_the_catalogue_is_read_without_torch():
    code = (
        "import sys; from lossbench.catalogue.registry import losses, parse_loss; losses(); "
        "parse_loss('dice'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_built_in_loss_runs_through_get_loss():
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    target = torch.randint(0, 3, (2, 8, 8))
    supplied = {
        "distance_map": torch.zeros(2, 3, 8, 8),
        "class_frequency": torch.tensor([0.8, 0.1, 0.1]),
        "progress": 0.5,
        "ignore_index": None,
    }
    for name in losses():
        value = get_loss(name)(logits, target, **supplied)
        assert value.ndim == 0 and torch.isfinite(value), name


def test_a_weighted_sum_is_the_sum_of_its_parts():
    logits, target = torch.randn(2, 2, 8, 8), torch.randint(0, 2, (2, 8, 8))
    both = get_loss("0.3*ce + 2*dice")(logits, target)
    assert torch.allclose(both, 0.3 * get_loss("ce")(logits, target) + 2 * get_loss("dice")(logits, target))


def test_a_users_file_adds_a_loss_that_trains_with_its_own_parameters(own):
    function = get_loss("mine(power=1.0)", [own])
    assert function(torch.zeros(1, 2, 4, 4), torch.ones(1, 4, 4, dtype=torch.long)).item() == pytest.approx(
        1.0
    )


def test_reading_a_users_file_does_not_run_it(tmp_path):
    path = tmp_path / "loud.py"
    path.write_text("raise SystemExit('ran')\n" + OWN)
    assert "mine" in losses([path])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("def f(x): return x", "registers nothing"),
        ("from lossbench import loss\n@loss('dice')\ndef f(logits, target): return 0", "exists already"),
        ("from lossbench import loss\n@loss('a b')\ndef f(logits, target): return 0", "plain word"),
        ("from lossbench import loss\n@loss('f')\ndef f(logits): return 0", r"\(logits, target"),
        (
            "from lossbench import loss\n@loss('f')\ndef f(logits, target, *, gamma): return 0",
            "has no default",
        ),
        (
            "from lossbench import loss\nimport math\n@loss('f')\ndef f(logits, target, *, "
            "g=math.pi): return 0",
            "plain number",
        ),
        ("def broken(:", "not valid Python"),
        (
            "from lossbench import loss\n@loss('f')\nclass F:\n    pass",
            r"bad.py:3: @loss stands above the class 'F'; decorate a function, not a class",
        ),
        (
            OWN + "@loss('f')\nclass F:\n    pass",
            r"@loss stands above the class 'F'; decorate a function, .* may call the class",
        ),
        (OWN + "@loss\ndef f(logits, target): return 0", r"@loss needs a name, as in @loss\('f'\)"),
        (
            "from lossbench import loss\n@loss('f')\ndef f(logits, target, class_frequency): return 0",
            r"put a \* before 'class_frequency', .*: \(logits, target, \*, class_frequency\)$",
        ),
        (
            "from lossbench import dataset\n@dataset('f')\ndef f(size=3, *, seed): return 0",
            r"data set 'f': put a \* before 'size', as parameters go by name: \(\*, size, \.\.\.\)",
        ),
        (
            "from lossbench import loss\n@loss('f')\ndef f(logits, target, *, progress=0.5): return 0",
            "bad.py:3: lossbench supplies 'progress' of loss 'f': write it without a default",
        ),
        (
            "import lossbench\n@lossbench.loss\ndef f(logits, target): return 0",
            r"bad.py:3: @loss needs a name, as in @loss\('f'\)",
        ),
        (
            "from lossbench import loss\ndef f(logits, target): return 0\nloss('f')(f)",
            r"bad.py:3: write @loss\(...\) above a function; a call of it is not read",
        ),
        (
            "from lossbench import network\nclass A:\n    @network('f')\n    def f(in_channels): return 0",
            "bad.py:4: 'f' stands within other code; @network is read at the top level",
        ),
        (
            "from lossbench import loss\n@loss('f', tune={'powr': (1, 2)})\n"
            "def f(logits, target, *, power=1.0): return 0",
            r"bad.py:3: tune of @loss\('f'\) names 'powr', which is no parameter; did you mean 'power'",
        ),
    ],
)
def test_a_bad_file_gets_one_sentence_with_its_name(tmp_path, text, part):
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(UserError, match=part) as caught:
        losses([path])
    assert "bad.py" in str(caught.value)


def test_a_file_that_cannot_be_imported_says_so(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("import nothing_of_this_name\n" + OWN)
    with pytest.raises(UserError, match="cannot be imported"):
        get_loss("mine", [path])


def test_aliases_resolve_to_their_loss():
    assert aliases()["gdl"] == "generalized_dice"
    for alias, name in aliases().items():
        assert parse_loss(alias).terms[0].name == name


def test_a_loss_of_running_code_says_that_parameters_and_sums_need_its_file():
    @loss("of_a_cell")
    def of_a_cell(logits, target, *, k=1.0):
        return k * logits.mean()

    @network("net_of_a_cell")
    def net_of_a_cell(in_channels, classes, dims, *, width=8):
        return torch.nn.Conv2d(in_channels, classes, 1)

    assert get_loss("of_a_cell")(torch.ones(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)) == 1
    assert get_network("net_of_a_cell").out_channels == 2
    for spec in ("of_a_cell(k=3.0)", "0.5*of_a_cell + 0.5*dice"):
        with pytest.raises(UserError, match=r"was registered by running code, .* needs its file: get_loss"):
            get_loss(spec)
    with pytest.raises(UserError, match=r"'net_of_a_cell' was registered by running code, .* its file"):
        get_network("net_of_a_cell(width=4)")


def test_running_code_may_not_take_the_name_of_a_built_in_loss():
    with pytest.raises(UserError, match=r"a loss named 'dice' exists already \(in overlap.py\)"):

        @loss("dice")
        def dice(logits, target):
            return logits.mean()

    with pytest.raises(UserError, match="@loss needs a name, as in @loss"):

        @loss
        def nameless(logits, target):
            return logits.mean()
