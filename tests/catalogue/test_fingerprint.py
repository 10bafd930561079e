"""A fingerprint changes exactly when what a loss computes may have changed."""

import json
import shutil

import pytest

from lossbench.catalogue import source
from lossbench.catalogue.source import fingerprint
from tools.fingerprints import GOLDEN, fingerprints

OWN = '''
"""A loss of my own."""
from lossbench import loss
from lossbench.base.errors import UserError
from near import helper
import far as other

SCALE = 2.0

def positive(power):
    if power <= 0:
        raise UserError(f"power={power} is not positive")

def doubled(function):
    return lambda x: 2 * function(x)

@doubled
def scaled(x):
    """Scale."""
    return x * SCALE

@loss("mine", family="user", cite="me")
def mine(logits, target, *, power=2.0, ignore_index=None):
    """Squared error."""
    positive(power)
    p = logits.softmax(1)[:, 1]
    far = (p - (target == 1).float()).abs() ** power
    return helper(scaled(far)).mean() + other.helper(far)
'''
NEAR = "def helper(x):\n    return x + again(x)\n\ndef again(x):\n    return helper(x)\n"
FAR = "def helper(x):\n    return x * 2\n\ndef far(x):\n    return x\n"


def test_the_golden_file_lists_every_built_in_loss():
    assert json.loads(GOLDEN.read_text()) == fingerprints(), "run: python -m tools.fingerprints"


def test_no_two_losses_share_a_fingerprint():
    assert len(set(fingerprints().values())) == len(fingerprints())


@pytest.fixture
def own(tmp_path):
    """A loss with helpers of one name in two files, one of which calls itself in a circle."""
    for name, text in {"own": OWN, "near": NEAR, "far": FAR}.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path / "own.py"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("Squared error.", "Another docstring.", True),
        ('cite="me"', 'cite="you"', True),
        ("def scaled(x):", "def scaled(x: float):  # a comment", True),
        ("is not positive", "must be positive", True),
        ("power <= 0", "power < 0.1", True),
        ("    positive(power)\n", "", True),
        ("SCALE = 2.0", "SCALE = 3.0", False),
        ("return x * SCALE", "return x + SCALE", False),
        ("** power", "** (power + 1)", False),
        ("power=2.0", "power=3.0", False),
        ("@doubled\n", "", False),
        ("2 * function", "3 * function", False),
        ("scaled(far)", "scaled(p)", False),
    ],
)
def test_the_fingerprint_changes_only_with_the_computation(own, old, new, same):
    before = fingerprint(own, "mine")
    edit(own, old, new)
    assert (fingerprint(own, "mine") == before) is same


def test_helpers_of_one_name_are_kept_apart(own):
    before = fingerprint(own, "mine")
    edit(own, "from near import helper\nimport far as other", "from far import helper\nimport near as other")
    assert fingerprint(own, "mine") != before


def test_a_helper_that_only_shares_its_name_with_a_variable_does_not_count(own):
    edit(own, "import far as other", "import far as other\nfrom far import far")
    before = fingerprint(own, "mine")
    edit(own.with_name("far.py"), "return x\n", "return -x\n")
    assert fingerprint(own, "mine") == before


def test_a_helper_counts_through_the_file_that_hands_it_on(own):
    edit(own, "from near import helper", "from between import helper")
    own.with_name("between.py").write_text("from near import helper\n")
    before = fingerprint(own, "mine")
    edit(own.with_name("near.py"), "return helper(x)", "return helper(x + 1)")
    assert fingerprint(own, "mine") != before


def test_a_check_that_begins_to_compute_counts_from_then_on(own):
    before = fingerprint(own, "mine")
    edit(own, "def positive(power):\n", "def positive(power):\n    SEEN.append(power)\n")
    assert fingerprint(own, "mine") != before


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of what losses are made of, to be edited."""
    copy = tmp_path / "lossbench"
    for room in ("base", "catalogue", "losses"):
        shutil.copytree(source.PACKAGE / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(source.PACKAGE / "__init__.py", copy)
    monkeypatch.setattr(source, "PACKAGE", copy)
    return copy


def test_no_name_of_a_file_or_folder_counts(package):
    edit(
        package / "losses" / "size.py",
        "from lossbench.losses.pixel import",
        "from lossbench.losses.pixels import",
    )
    (package / "losses" / "pixels.py").write_text((package / "losses" / "pixel.py").read_text())
    (package / "losses" / "size.py").rename(package / "losses" / "proportion.py")
    assert fingerprints(package) == fingerprints()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("base/errors.py", "cutoff=0.6", "cutoff=0.9"),
        (
            "catalogue/registry.py",
            "_live[kind, name] = function, meta",
            "_live[kind, name] = function, meta  \n        print()",
        ),
        (
            "catalogue/registry.py",
            'return _register("loss", name, meta)',
            'return _register("loss", name + "", meta)',
        ),
        ("losses/reduce.py", "is not known", "is unheard of"),
        ("losses/reduce.py", "does not fit", "suits no set of"),
        (
            "losses/reduce.py",
            "def _is_number(value: object) -> bool:\n",
            "def _is_number(value: object) -> bool:\n    print()\n",
        ),
        ("losses/overlap.py", "r.at_least(1, gamma=gamma)", "r.at_least(0.5, gamma=gamma)"),
        ("losses/overlap.py", "r.between(0, 1, epsilon=epsilon)", "pass"),
        ("losses/overlap.py", 'cite="Milletari 2016"', 'cite="Milletari, 2016"'),
        ("losses/overlap.py", "from lossbench", "def helper(x):\n    return x\n\n\nfrom lossbench"),
        ("losses/reduce.py", "over: str) -> Tensor:", "over) -> Tensor:"),
    ],
)
def test_what_does_not_compute_changes_no_fingerprint(package, file, old, new):
    edit(package / file, old, new)
    assert fingerprints(package) == fingerprints()


@pytest.mark.parametrize(
    ("file", "old", "new", "losses"),
    [
        (
            "overlap",
            "return r.average(1 - index, g, absent)",
            "return r.average(2 - index, g, absent)",
            {"tversky"},
        ),
        ("overlap", "(1 - a - b) * s.tp", "(1 - b - a) * s.tp", {"tversky", "focal_tversky"}),
        ("agreement", '"simple": 1', '"simple": 1.5', {"generalized_dice"}),
        ("size", "EPS = 1e-10", "EPS = 1e-9", {"ce_l1", "ce_db"}),
        ("topology", "(3,) * (x.ndim - 2)", "(5,) * (x.ndim - 2)", {"cldice", "clce"}),
        (
            "overlap",
            "2 * s.tp, s.p + s.g",
            "2 * s.tp, s.g + s.p",
            {"dice", "dice_ce", "dice_focal", "dice_topk", "ce_to_dice", "boundary", "gen_surface"}
            | {"skeleton_recall", "blob", "cc_dice_ce"},
        ),
        (
            "reduce",
            "1e-7 if exponent < 1",
            "1e-8 if exponent < 1",
            {"focal", "dice_focal", "focal_tversky", "unified_focal", "exp_log"},
        ),
    ],
)
def test_a_formula_changes_the_losses_that_use_it_and_no_others(package, file, old, new, losses):
    before = fingerprints(package)
    edit(package / "losses" / f"{file}.py", old, new)
    after = fingerprints(package)
    assert {name for name in after if after[name] != before[name]} == losses
