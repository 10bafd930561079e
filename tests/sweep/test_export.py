"""What is written after the shortlist runs as it is, and its losses are ours."""

import ast
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lossbench import get_loss
from lossbench.base.errors import UserError
from lossbench.catalogue.registry import parse_loss
from lossbench.catalogue.spellings import WRITERS, code
from lossbench.experiment.reading import read_experiment
from lossbench.sweep.export import export

SPECS = (
    *("ce", "dice", "batch_dice", "dice_all", "dice_ce", "focal", "focal(gamma=1.0)", "tversky"),
    *("dice_ce(over='batch')", "dice_ce(dice_weight=0.5, ce_weight=2.0)", "dice_all(over='batch')"),
    "tversky(over='batch', fp_weight=0.8, fn_weight=0.4)",
)

LEFT_OUT = "dice(ignore_index=255)"  # each library has a way of its own, which only an export writes


@pytest.mark.peers
@pytest.mark.parametrize("library", ["monai", "smp"])
@pytest.mark.parametrize("classes", [3, None])
@pytest.mark.parametrize("spec", SPECS)
def test_a_spelling_is_our_loss_in_value_and_gradient(library, spec, classes):
    pytest.importorskip({"monai": "monai", "smp": "segmentation_models_pytorch"}[library])
    own = code(parse_loss(spec), library, classes)
    if own is None:
        assert library == "smp" and spec.startswith("focal")  # its focal loss is another one
        return
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, dtype=torch.float32)
    target = torch.arange(2 * 8 * 8).reshape(2, 8, 8) % 3  # every image holds every class
    results = []
    for ours in (True, False):
        z = logits.clone().requires_grad_()
        if ours:
            value = get_loss(spec)(z, target)
        else:
            names = {"torch": torch, "logits": z, "target": target, "n_classes": 3}
            exec(own.imports, names)
            names["loss"] = eval(own.make, names)
            value = eval(own.call, names)
        value.backward()
        results.append((float(value.detach()), z.grad))
    (mine, gradient), (theirs, other) = results
    assert theirs == pytest.approx(mine, rel=1e-5)
    assert torch.allclose(gradient, other, rtol=1e-3, atol=1e-7)


def test_what_a_library_does_not_have_has_no_spelling():
    for spec in (
        "ce(weights=[1, 2])",
        "dice(absent='skip')",
        "dice(smooth=1.0)",
        "0.5*ce + 0.5*dice",
        LEFT_OUT,
    ):
        assert all(code(parse_loss(spec), library) is None for library in WRITERS)
    assert code(parse_loss("lovasz"), "monai") is None


@pytest.fixture
def experiment(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "mine"\nseeds = 8\nlosses = ["dice_ce", "ce", "batch_dice", "mcc"]\nlengths = [2, 6]\n'
        'datasets = ["scenes(size=32, foreground=0.1, n_train=6, n_val=2, n_test=2)"]\nheads = ["prior"]\n'
        '[recipe]\nschedule = "wsd"\nwarmup = 1\nbatch = 2\nsampler = "foreground(share=0.5)"\n'
    )
    return read_experiment(str(file))


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("library", ["monai", "smp"])
def test_the_script_trains_and_says_how_well(experiment, library, tmp_path):
    pytest.importorskip({"monai": "monai", "smp": "segmentation_models_pytorch"}[library])
    (tmp_path / "train.py").write_text(export(experiment, "dice_ce", library))
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "step 5: " in done.stdout and "validation Dice " in done.stdout
    assert (tmp_path / f"{library}.pt").is_file()


def test_the_trainer_of_nnunet_holds_loss_head_and_frequencies(experiment):
    text = export(experiment, "dice_ce", "nnunet")
    ast.parse(text)
    assert "DC_and_CE_loss(dict(batch_dice=False, do_bg=False, smooth=1e-5, ddp=False), {}" in text
    frequencies = ast.literal_eval(text.split("FREQUENCIES = ")[1].splitlines()[0])
    assert sum(frequencies) == pytest.approx(1) and 0.05 < frequencies[1] < 0.2
    assert "def initialize" in text


@pytest.fixture
def own(tmp_path):
    """Return a function that writes pictures of one's own, with void rows or without, and returns the
    experiment.
    """

    def make(void, shape=(32, 32)):
        rng = np.random.default_rng(0)
        for folder in ("images", "masks"):
            (tmp_path / "own" / folder).mkdir(parents=True)
        for number in range(10):
            mask = np.zeros(shape, np.uint8)
            mask[8:20, 8:20] = 1
            mask[20:24] = 255 * void
            Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(
                tmp_path / "own" / "images" / f"{number}.png"
            )
            Image.fromarray(mask).save(tmp_path / "own" / "masks" / f"{number}.png")
        file = tmp_path / "mine.toml"
        file.write_text(
            'name = "mine"\nseeds = 8\nlosses = ["dice_ce", "ce", "dice", "batch_dice"]\n'
            f'datasets = ["folder(path={str(tmp_path / "own")!r}, ignore_index=255)"]\n'
        )
        return read_experiment(str(file))

    return make


def test_the_trainer_of_nnunet_leaves_out_void_pixels_or_is_refused(own):
    found = own(void=True)
    given = '**({} if ignored is None else {"%s": ignored}))'
    assert f"Loss, {given % 'ignore_label'}\n" in export(found, "dice_ce", "nnunet")
    assert f"RobustCrossEntropyLoss({given % 'ignore_index'}\n" in export(found, "ce", "nnunet")
    with pytest.raises(UserError, match=r"void pixels .*take ce or dice_ce, which can"):
        export(found, "batch_dice", "nnunet")


@pytest.mark.parametrize("shape", [(32, 32), (30, 32), (200, 180)])  # as it is, padded, whole
def test_without_void_pixels_the_trainer_of_nnunet_takes_every_loss(own, shape):
    found = own(void=False, shape=shape)
    for loss in ("dice", "batch_dice", "ce", "dice_ce"):
        assert "ignore" not in export(found, loss, "nnunet").split("class ")[1]


@pytest.mark.parametrize("label", [None, 2])
@pytest.mark.parametrize("void", [True, False])
def test_the_loss_of_the_trainer_takes_a_step_whatever_labels_nnunet_has(own, void, label, monkeypatch):
    """With stubs of nnU-Net: its cross-entropy is torch's, which takes no None."""
    from types import ModuleType, SimpleNamespace

    class RobustCrossEntropyLoss(torch.nn.CrossEntropyLoss):
        def forward(self, logits, target):
            return super().forward(logits, target[:, 0].long())

    start = "nnunetv2.training"
    stubs = {
        f"{start}.loss.robust_ce_loss": {"RobustCrossEntropyLoss": RobustCrossEntropyLoss},
        f"{start}.loss.deep_supervision": {"DeepSupervisionWrapper": None},
        f"{start}.nnUNetTrainer.nnUNetTrainer": {"nnUNetTrainer": object},
    }
    for name, content in stubs.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    names = {}
    exec(export(own(void=void), "ce", "nnunet"), names)
    trainer = names["nnUNetTrainerLossbench"]()
    trainer.label_manager, trainer.enable_deep_supervision = SimpleNamespace(ignore_label=label), False
    loss = trainer._build_loss()
    assert loss.ignore_index == (2 if void and label == 2 else -100)
    assert torch.isfinite(loss(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4)))


STEP = """
import numpy as np
import torch
from PIL import Image
from trainer import FREQUENCIES, nnUNetTrainerLossbench

kernels, strides = [[3, 3]] * 3, [[1, 1], [2, 2], [2, 2]]
layers = dict(conv_op="torch.nn.Conv2d", norm_op="torch.nn.InstanceNorm2d", nonlin="torch.nn.LeakyReLU")
network = dict(
    network_class_name="dynamic_network_architectures.architectures.unet.PlainConvUNet",
    arch_kwargs=dict(
        n_stages=3, features_per_stage=[4, 8, 8], kernel_sizes=kernels, strides=strides,
        n_conv_per_stage=[1] * 3, n_conv_per_stage_decoder=[1] * 2, conv_bias=True,
        norm_op_kwargs=dict(affine=True), dropout_op=None,
        dropout_op_kwargs=None, nonlin_kwargs={}, **layers,
    ),
    _kw_requires_import=list(layers),
)
own = dict(data_identifier="own", batch_size=2, patch_size=[32, 32], batch_dice=False, architecture=network)
plans = dict(dataset_name="own", plans_name="plans", label_manager="LabelManager", configurations={"2d": own})
labels = dict(labels=dict(background=0, foreground=1), channel_names={"0": "grey"})
trainer = nnUNetTrainerLossbench({**plans, "continue_training": False}, "2d", 0, labels, torch.device("cpu"))
trainer.initialize()
named = trainer.network.named_parameters()
heads = [v for name, v in named if "seg_layers" in name and name.endswith("bias")]
assert len(heads) == 2
torch.testing.assert_close(heads[0].detach().softmax(0), torch.tensor(FREQUENCIES))
target = (torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.8).float()
batch = dict(data=torch.cat([target]) * 2 - 1, target=[target, target[..., ::2, ::2]])
trainer.network.train()
values = [float(trainer.train_step(batch)["loss"]) for _ in range(9)]
assert np.isfinite(values).all() and values[-1] < values[0], values
"""


@pytest.mark.peers
@pytest.mark.parametrize("loss", ["dice_ce", "ce", "batch_dice"])
def test_the_trainer_of_nnunet_takes_steps_from_the_frequencies(experiment, loss, tmp_path):
    pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")
    (tmp_path / "trainer.py").write_text(export(experiment, loss, "nnunet"))
    (tmp_path / "own" / "own").mkdir(parents=True)
    (tmp_path / "own" / "own" / "case.b2nd").touch()  # nnU-Net tells the kind of its data by names
    folders = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), str(tmp_path))
    own = {**os.environ, **folders, "nnUNet_compile": "f"}
    done = subprocess.run([sys.executable, "-c", STEP], cwd=tmp_path, capture_output=True, text=True, env=own)
    assert done.returncode == 0, done.stderr


def test_a_loss_that_a_library_does_not_have_is_refused_with_those_that_it_has(experiment):
    with pytest.raises(
        UserError, match="smp has no 'mcc'; of this experiment's losses it has dice_ce, ce, batch_dice"
    ):
        export(experiment, "mcc", "smp")
    with pytest.raises(UserError, match="--use dice: it is not among the losses"):
        export(experiment, "dice", "monai")


def test_the_loss_is_the_one_that_was_recommended_for_the_data_set_that_the_script_trains_on(
    experiment, tmp_path
):
    from types import SimpleNamespace

    from lossbench.cli import experiments

    first = experiment.datasets[0][0].public.text
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "recommendations.csv").write_text(
        f'dataset,loss\n"another","ce"\n"{first}","batch_dice"\n'
    )
    note = SimpleNamespace(read=lambda results: experiment)  # both have a name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "note", note)
        assert experiments._recommended(tmp_path, experiment) == "batch_dice"
