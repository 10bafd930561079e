"""Losses of other libraries: named by a spec, called rightly, corrected, and refused with a sentence."""

import importlib
import sys

import pytest
import torch
from loss_cases import VOID, case, evaluate

from lossbench.base.errors import UserError
from lossbench.base.specs import LIBRARIES
from lossbench.catalogue import adapters
from lossbench.catalogue.registry import get_loss

OFFERED = [(library, name) for library, names in adapters.PEERS.items() for name in names]
ALL = [(library, name) for library, name in OFFERED if library != "topolosses"]
TOPOLOGICAL = [name for library, name in OFFERED if library == "topolosses"]
peers = pytest.mark.peers
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def installed(request):
    if request.node.get_closest_marker("peers"):
        for library in ("monai", "segmentation_models_pytorch", "kornia"):
            pytest.importorskip(library, reason="the extra 'peers' is not installed")


@peers
@pytest.mark.parametrize(("library", "name"), ALL)
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_every_offered_loss_runs_or_says_why_not(library, name, classes):
    peer = adapters.PEERS[library][name]
    size = (8, 8) if 2 in peer.axes else (8, 8, 8)
    logits, target = case(classes, size, dtype=torch.float16)
    if peer.two_classes and classes == 3:
        with pytest.raises(UserError, match="is for two classes"):
            evaluate(f"{library}:{name}", logits, target)
        return
    loss, gradient = evaluate(f"{library}:{name}", logits, target)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert gradient.isfinite().all()
    if "HausdorffER" not in name:  # eroding noise leaves nothing
        assert gradient.abs().sum() > 0


@peers
@pytest.mark.parametrize(("library", "name"), ALL)
def test_void_pixels_are_honoured_or_refused(library, name):
    peer = adapters.PEERS[library][name]
    size = (8, 8) if 2 in peer.axes else (8, 8, 8)
    logits, target = case(2, size, dtype=torch.float32)
    holed = target.clone()
    holed[:, :3] = VOID
    try:
        _, gradient = evaluate(f"{library}:{name}", logits, holed, VOID)
    except UserError as error:
        assert "has no ignore_index" in str(error)
        return
    assert (gradient.movedim(1, -1)[holed == VOID] == 0).all()
    unused, _ = evaluate(f"{library}:{name}", logits, target, VOID)
    plain, _ = evaluate(f"{library}:{name}", logits, target)
    assert float(unused) == pytest.approx(
        float(plain), rel=1e-5
    )  # MONAI's focal loss alone would be twice as large


@pytest.mark.parametrize("name", TOPOLOGICAL)
def test_a_topological_loss_is_small_where_the_topology_is_right(name):
    pytest.importorskip("topolosses", reason="the extra 'topology' is not installed")
    # A ring, and the same ring with a gap: one hole less.
    target = torch.zeros(1, 12, 12, dtype=torch.long)
    target[:, 2:10, 2:10] = 1
    target[:, 4:8, 4:8] = 0
    logits = torch.where(target > 0, 4.0, -4.0).unsqueeze(1)
    broken = logits.clone()
    broken[..., 8:10, 5] = -4
    loss = get_loss(f"topolosses:{name}")
    assert float(loss(logits, target)) < float(loss(broken, target))
    _, gradient = evaluate(f"topolosses:{name}", broken, target)
    assert gradient.isfinite().all() and gradient[..., 8:10, 5].abs().sum() > 0
    with pytest.raises(UserError, match="has no ignore_index"):
        loss(logits, target, ignore_index=VOID)


@peers
def test_large_half_precision_logits_do_not_overflow():
    logits = torch.zeros(1, 2, 512, 512, dtype=torch.float16)
    target = torch.zeros(1, 512, 512, dtype=torch.long)
    target[:, :128] = 1
    for spec in (
        "monai:DiceLoss(include_background=False)",
        "smp:DiceLoss",
        "kornia:DiceLoss(average='macro')",
    ):
        assert float(get_loss(spec)(logits, target)) == pytest.approx(
            float(get_loss(spec)(logits.float(), target)), rel=1e-6
        )


@peers
def test_the_unified_focal_loss_of_monai_gets_its_softmax():
    logits, target = case(2, dtype=torch.float32)
    raw = importlib.import_module("monai.losses").AsymmetricUnifiedFocalLoss()
    hot = torch.nn.functional.one_hot(target, 2).movedim(-1, 1).float()
    assert float(get_loss("monai:AsymmetricUnifiedFocalLoss")(logits, target)) == pytest.approx(
        float(raw(logits.softmax(1), hot))
    )


@peers
def test_the_mcc_loss_of_smp_gets_probabilities():
    logits, target = case(2, dtype=torch.float32)
    assert 0 <= float(get_loss("smp:MCCLoss")(20 * logits, target)) <= 2


@peers
def test_sigmoid_focal_losses_are_pointed_out():
    for spec in ("monai:DiceFocalLoss", "smp:FocalLoss"):
        with pytest.warns(UserWarning, match="sigmoid focal"):
            get_loss(spec)


@peers
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            "monai:DiceLoss(smoth_nr=1)",
            "monai:DiceLoss has no argument 'smoth_nr'; did you mean 'smooth_nr'?",
        ),
        ("monai:DiceLoss(size=1)", "there are: batch, include_background"),
        (
            "monai:DiceLoss(softmax=False)",
            "'softmax' of monai:DiceLoss is set by lossbench; its free arguments are: include_background",
        ),
        ("monai:DiceLoss(ignore_index=255)", "'ignore_index' of monai:DiceLoss is set by lossbench"),
        ("monai:FocalLoss(include_background=False)", "drops the background before the softmax"),
        ("monai:DiceLos", "monai:DiceLos is not one of its segmentation losses; did you mean 'DiceLoss'?"),
        ("monai:SSIMLoss", "is not one of its segmentation losses"),
        ("smp:DiceLoss(mode='binary')", "'mode' of smp:DiceLoss is set by lossbench"),
        ("kornia:DiceLoss(average='median')", "kornia:DiceLoss(average='median') is refused by the library"),
        ("torch:CrossEntropyLoss(label_smoothing='much')", "is refused by the library"),
        ("torch:L1Loss", "there are: BCEWithLogitsLoss, CrossEntropyLoss"),
    ],
)
def test_a_wrong_request_is_answered_by_a_sentence(spec, words):
    logits, target = case(2, dtype=torch.float32)
    with pytest.raises(UserError) as caught:
        get_loss(spec)(logits, target)
    assert words in str(caught.value)


def test_a_missing_library_says_what_to_install(monkeypatch):
    for library, (module, package) in adapters.MODULES.items():
        if library == "torch":
            continue
        monkeypatch.setitem(sys.modules, module.split(".")[0], None)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UserError, match=r"pip install 'lossbench\[(peers|topology)\]'") as caught:
            adapters.build(library, "DiceLoss", {})
        assert package in str(caught.value)


def test_every_library_that_a_spec_may_name_has_its_adapters():
    assert set(LIBRARIES["loss"]) == set(adapters.MODULES) == set(adapters.PEERS)


def test_an_unknown_library_is_named():
    with pytest.raises(
        UserError, match="unknown library 'keras'; there are: kornia, monai, smp, topolosses, torch"
    ):
        adapters.version("keras")


@peers
def test_the_record_can_say_what_was_injected():
    assert adapters.injected("monai", "FocalLoss") == {
        "to_onehot_y": False,
        "reduction": "mean",
        "use_softmax": True,
    }
    assert adapters.injected("smp", "SoftCrossEntropyLoss") == {
        "reduction": "mean",
        "dim": 1,
        "smooth_factor": 0.0,
    }
    assert adapters.version("monai").count(".") >= 2


@peers
def test_lists_become_tensors_where_the_library_wants_them():
    logits, target = case(3, dtype=torch.float32)
    native, _ = evaluate("ce(weights=[1, 2, 3])", logits, target)
    peer, _ = evaluate("torch:CrossEntropyLoss(weight=[1, 2, 3])", logits, target)
    assert float(native) == pytest.approx(float(peer))


def test_parsing_a_spec_imports_no_library():
    code = (
        "import sys; from lossbench.catalogue.registry import parse_loss; "
        "parse_loss('monai:DiceLoss(gamma=2) + smp:DiceLoss');"
        "assert not {'monai', 'segmentation_models_pytorch', 'kornia', 'torch'} & set(sys.modules)"
    )
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True)
