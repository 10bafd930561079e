"""Native losses equal the same losses of MONAI, segmentation-models-pytorch, kornia and torch, in value and
gradient.
"""

import json
from pathlib import Path

import peer_pairs
import pytest
import torch
from loss_cases import VOID, case, evaluate

from lossbench import get_loss, metrics

CASES = [
    pytest.param(pair, classes, axes, id=f"{pair.native}~{pair.peer}-{classes}-{axes}D")
    for pair in peer_pairs.PAIRS
    for classes in pair.classes
    for axes in pair.axes
]
RELEASED = json.loads((Path(__file__).parents[1] / "golden/losses_released.json").read_text())
GOLDEN = json.loads((Path(__file__).parents[1] / "golden/losses_peers.json").read_text())


@pytest.fixture(scope="module")
def peers():
    for library in ("monai", "segmentation_models_pytorch", "kornia"):
        pytest.importorskip(library, reason="the extra 'peers' is not installed")


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("pair", "classes", "axes"), CASES)
def test_native_equals_peer_in_value_and_gradient(peers, pair, classes, axes):
    own, own_gradient = peer_pairs.value_and_gradient(pair.native, classes, axes, pair.dtype, pair.shares)
    peer, peer_gradient = peer_pairs.value_and_gradient(pair.peer, classes, axes, pair.dtype, pair.shares)
    scale = pair.scale(classes)
    assert float(own) == pytest.approx(scale * float(peer), rel=1e-5, abs=1e-6)
    largest = float((scale * peer_gradient).abs().max())
    assert float((own_gradient - scale * peer_gradient).abs().max()) <= pair.tolerance * largest


@pytest.mark.parametrize(("pair", "classes", "axes"), CASES)
def test_native_equals_the_frozen_numbers_of_the_peer(pair, classes, axes):
    frozen = GOLDEN[f"{pair.native} | {pair.peer} | {classes} classes {axes}-D"]
    own, gradient = peer_pairs.value_and_gradient(pair.native, classes, axes, pair.dtype, pair.shares)
    scale = pair.scale(classes)
    assert float(own) == pytest.approx(scale * frozen["value"], rel=1e-5, abs=1e-6)
    assert float(gradient.abs().sum()) == pytest.approx(scale * frozen["mass"], rel=1e-4)
    entries = gradient.reshape(-1)[:: gradient.numel() // 6][:6].tolist()
    expected = [scale * e for e in frozen["entries"]]
    assert entries == pytest.approx(expected, abs=pair.tolerance * scale * frozen["largest"])


@pytest.mark.parametrize(
    ("key", "case_of"),
    [(key, name) for key, entry in RELEASED.items() for name in entry["cases"]],
)
def test_a_loss_gives_the_numbers_of_the_released_code(key, case_of):
    native, frozen = RELEASED[key]["native"], RELEASED[key]["cases"][case_of]
    if native == "boundary_iou_released":
        truth, prediction = peer_pairs.discs(tuple(int(side) for side in case_of.split(" x ")))
        assert metrics.evaluate(prediction, truth, released=True)[native] == pytest.approx(frozen["value"])
        return
    # Another smoothing, and the digits that the other code loses, may tell the two apart.
    tolerance = 1e-4 if {"smoothing", "digits"} & {*RELEASED[key]["note"].split()} else 1e-5
    own, gradient = peer_pairs.value_and_gradient(native, int(case_of[0]), int(case_of[-3]))
    assert float(own) == pytest.approx(frozen["value"], rel=tolerance)
    assert float(gradient.abs().sum()) == pytest.approx(frozen["mass"], rel=1e-4)
    entries = gradient.reshape(-1)[:: gradient.numel() // 6][:6].tolist()
    assert entries == pytest.approx(frozen["entries"], abs=tolerance * frozen["largest"])


@pytest.mark.parametrize("name", ["cldice", "gen_surface", "hausdorff_dt", "mbls", "nacl", "unified_focal"])
def test_a_released_variant_is_another_loss(name):
    # On images whose objects touch the border, of three classes.
    paper, _ = peer_pairs.value_and_gradient(name.replace("mbls", "mbls(margin=1)"), 3, 2)
    options = "variant='released'" + ", margin=1" * (name == "mbls")
    released, _ = peer_pairs.value_and_gradient(f"{name}({options})", 3, 2)
    assert abs(float(paper - released)) > 1e-4


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("native", "peer"),
    [
        ("dice", "monai:DiceLoss(include_background=False)"),
        ("tversky", "monai:TverskyLoss(include_background=False, alpha=0.3, beta=0.7)"),
        ("focal", "2*monai:FocalLoss"),
        ("batch_dice(classes='all', smooth=0)", "smp:DiceLoss"),
        ("lovasz", "smp:LovaszLoss"),
        ("ce", "torch:CrossEntropyLoss"),
        ("ce(weights=[1, 3])", "torch:CrossEntropyLoss(weight=[1, 3])"),
        ("ls_ce(epsilon=0.2)", "torch:CrossEntropyLoss(label_smoothing=0.2)"),
    ],
)
def test_native_equals_peer_beside_void_pixels(peers, native, peer):
    logits, target = case(2, (16, 16), dtype=torch.float32)
    target[:, 10:] = VOID
    own, own_gradient = evaluate(native, logits, target, VOID)
    other, gradient = evaluate(peer, logits, target, VOID)
    assert float(own) == pytest.approx(float(other), rel=1e-5, abs=1e-6)
    assert float((own_gradient - gradient).abs().max()) <= 1e-4 * float(gradient.abs().max())


@pytest.mark.peers
def test_smp_focal_is_one_sigmoid_a_class(peers):
    from segmentation_models_pytorch.losses import FocalLoss

    logits, target = case(3, (8, 8))
    hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    own = float(get_loss("focal", multilabel=True)(logits, hot))
    assert own == pytest.approx(float(FocalLoss("multiclass")(logits, target)))


@pytest.mark.parametrize(
    ("one", "other", "value_gap", "gradient_gap"),
    [
        ("tversky", "dice", 1e-4, 1e-2),
        ("lovasz", "lovasz(over='sample')", 1e-4, 1e-2),
        ("dice", "dice_all", 1e-4, 1e-2),
    ],
)
def test_the_tolerances_tell_neighbouring_losses_apart(one, other, value_gap, gradient_gap):
    a, da = peer_pairs.value_and_gradient(one, 2, 2)
    b, db = peer_pairs.value_and_gradient(other, 2, 2)
    assert abs(float(a - b)) > value_gap
    assert float((da - db).abs().max()) > gradient_gap * float(da.abs().max())
