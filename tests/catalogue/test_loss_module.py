"""What get_loss returns is a torch module: readable, copied, pickled, compiled, used in training loops."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from lossbench import get_loss, loss
from lossbench.base.errors import UserError

Z = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
Y = (Z[:, 1] > Z[:, 0]).long()
OWN = """
from lossbench import loss

@loss("mine")
def mine(logits, target, *, power=2.0):
    return (logits.softmax(1)[:, 1] - (target == 1).float()).abs().pow(power).mean()
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return path


def test_it_is_a_module_without_weights_that_says_what_it_is():
    module = get_loss("0.5*ce + 0.5*dice(over='batch')")
    assert isinstance(module, nn.Module) and not list(module.state_dict())
    assert repr(module) == "Loss(0.5*ce + 0.5*dice(over='batch'))"
    assert repr(get_loss("dice", check=False)) == "Loss(dice, check=False)"
    assert "(1): Loss(dice)" in repr(nn.Sequential(nn.Conv2d(1, 2, 3), get_loss("dice")))


@pytest.mark.parametrize(
    "spec", ["dice", f"{1 / 3}*ce + {2 / 3}*tversky(fp_weight=0.4)", "torch:CrossEntropyLoss", "mine"]
)
def test_a_copy_and_what_was_pickled_compute_the_same(spec, own):
    module = get_loss(spec, [own], check=False)
    stored = io.BytesIO()
    torch.save(module, stored)
    stored.seek(0)
    again = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(stored, weights_only=False),
    ]
    for other in again:
        assert repr(other) == repr(module)
        assert other(Z, Y) == module(Z, Y)


def test_compiled_in_one_graph_it_gives_the_same_value_and_gradient():
    module = get_loss("dice_ce")
    results = []
    for function in (module, torch.compile(module, fullgraph=True, backend="eager")):
        z = Z.clone().requires_grad_()
        value = function(z, Y)
        results.append((value, *torch.autograd.grad(value, z)))
    assert torch.allclose(results[0][0], results[1][0]) and torch.allclose(results[0][1], results[1][1])


def test_a_function_of_the_running_program_is_a_loss_by_its_name():
    @loss("of_this_program")
    def of_this_program(logits, target, *, progress):
        return logits.mean() * progress

    module = get_loss("of_this_program")
    assert repr(module) == "Loss(of_this_program)"
    assert module(Z, Y, progress=0.5) == Z.mean() * 0.5
    with pytest.raises(UserError, match="needs progress"):
        module(Z, Y)


def descend(step):
    """Train one layer by a step function; the loss must fall."""
    values = [float(step()) for _ in range(5)]
    assert values[-1] < values[0]


@pytest.mark.peers
def test_a_step_with_monai_data_and_network():
    monai = pytest.importorskip("monai", reason="the extra 'peers' is not installed")
    from monai.networks.nets import BasicUNet

    monai.utils.set_determinism(0)
    network, module = BasicUNet(2, 1, 2, features=(4, 4, 4, 4, 4, 4)), get_loss("dice_ce")
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    batch = {"image": torch.randn(2, 1, 32, 32), "label": (torch.randn(2, 1, 32, 32) > 0).float()}

    def step():
        optimizer.zero_grad()
        # MONAI keeps an axis of one channel in labels, and floats.
        value = module(network(batch["image"]), batch["label"].squeeze(1).long())
        value.backward()
        optimizer.step()
        return value.detach()

    descend(step)


def test_a_step_of_lightning(tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Segmenter(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network, self.loss, self.values = nn.Conv2d(1, 2, 3, padding=1), get_loss("dice_ce"), []

        def training_step(self, batch, index):
            value = self.loss(self.network(batch[0]), batch[1])
            self.values.append(value.item())
            return value

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.05)

    data = torch.utils.data.TensorDataset(Z[:, :1], Y)
    model = Segmenter()
    trainer = lightning.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=2))
    assert model.values[-1] < model.values[0]
    kept = Segmenter()
    kept.load_state_dict(model.state_dict())


def test_a_step_of_nnunet_with_deep_supervision():
    supervision = pytest.importorskip(
        "nnunetv2.training.loss.deep_supervision", reason="nnunetv2 is not installed"
    )
    network, module = nn.Conv2d(1, 2, 3, padding=1), get_loss("dice_ce")
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    # nnU-Net's targets have an axis of one channel and come in several resolutions.
    several = supervision.DeepSupervisionWrapper(lambda z, y: module(z, y[:, 0].long()), [0.7, 0.3])

    def step():
        optimizer.zero_grad()
        z = network(Z[:, :1])
        value = several([z, z[..., ::2, ::2]], [Y[:, None], Y[:, None, ::2, ::2]])
        value.backward()
        optimizer.step()
        return value.detach()

    descend(step)
