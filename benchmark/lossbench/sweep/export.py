"""After the shortlist: a short script, or a trainer class, that trains with the chosen loss elsewhere.

What is written is read and changed by a person: plain code, the recipe in one table at its head. It reads the
data through lossbench, so that split and classes are those of the sweep.
"""

from __future__ import annotations

from typing import Any

from lossbench.base.errors import UserError, nearest
from lossbench.catalogue.registry import get_dataset, parse_loss
from lossbench.catalogue.spellings import Code, code
from lossbench.data.container import has_void
from lossbench.data.patches import parse_sampler
from lossbench.experiment.cells import Cell, Experiment

# What a library's script needs besides the loss: imports, network, how whole images are predicted.
# The last value divides the sides of a patch: BasicUNet halves them four times, a ResNet-18 encoder five.
NETWORKS = {
    "monai": (
        "from monai.inferers import sliding_window_inference\nfrom monai.networks.nets import BasicUNet",
        "BasicUNet(data.dims, data.channels, CLASSES, features=(16, 16, 32, 64, 128, 16))",
        "network.final_conv.bias",
        "sliding_window_inference(image, PATCH, BATCH, network, overlap=0.25)",
        16,
    ),
    "smp": (
        "import segmentation_models_pytorch as smp",
        'smp.Unet("resnet18", encoder_weights=None, in_channels=data.channels, classes=CLASSES)',
        "network.segmentation_head[0].bias",
        "padded(image, network)",
        32,
    ),
}

PADDED = '''
def padded(image, network):
    """Return the logits of a whole image, whose sides the network wants to be multiples of 32."""
    height, width = image.shape[2:]
    image = torch.nn.functional.pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")
    return network(image)[..., :height, :width]

'''

SCRIPT = '''"""Train with {label}, after a sweep of lossbench over {data}.

Written by `lossbench export`; it is yours to change. The recipe is that of the sweep; the network is larger.
"""

import numpy as np
import torch
{imports}
from lossbench import get_dataset

SEED = 0
STEPS = {steps}
BATCH = {batch}  # patches a step
PATCH = {patch}  # sides of a patch
SHARE = {share}  # of the patches is centred on foreground
RATE = {rate}  # peak of the learning rate
WEIGHT_DECAY = {decay}
CLASSES = {classes}

data = get_dataset({spec!r}, seed=SEED)
rng = np.random.default_rng(SEED)
torch.manual_seed(SEED)


def draw(part):
    """Return an image patch float32 (C, *PATCH) and its class ids int64 (*PATCH)."""
    n = rng.choice(data.split[part])
    image, mask = np.asarray(data.images[n]), np.asarray(data.masks[n]).astype(np.int64)
    pad = [(0, max(0, side - own)) for side, own in zip(PATCH, mask.shape)]
    image, mask = np.pad(image, [(0, 0), *pad], mode="reflect"), np.pad(mask, pad, mode="reflect")
    mask[mask == data.ignore_index] = 0  # void counts as background: not every loss here knows void
    room = np.array(mask.shape) - PATCH + 1
    start = rng.integers(room)
    if rng.random() < SHARE and mask.any():
        centre = rng.choice(np.argwhere(mask > 0))
        start = np.clip(centre - np.array(PATCH) // 2, 0, room - 1)
    at = tuple(slice(begin, begin + side) for begin, side in zip(start, PATCH))
    return image[(slice(None), *at)], mask[at]


def batch(part="train"):
    images, masks = zip(*(draw(part) for _ in range(BATCH)))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))


loss = {make}


def loss_of(logits, target):
    """logits (N, C, *S), target (N, *S) class ids."""
    return {call}


network = {network}
{prior}optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
schedule = {schedule}

network.train()
for step in range(STEPS):
    images, target = batch()
    if rng.random() < 0.5:  # mirror images, along the last axis
        images, target = images.flip(-1), target.flip(-1)
    value = loss_of(network(images), target)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    schedule.step()
    if step % 50 == 0 or step == STEPS - 1:
        print(f"step {{step}}: {{value.item():.4f}}", flush=True)

{padded}
network.eval()
scores = []
with torch.no_grad():
    for n in data.split["val"]:
        image = torch.from_numpy(np.asarray(data.images[n]))[None]
        marked = {predict}[0].argmax(0).numpy()
        truth = np.asarray(data.masks[n])
        for kind in range(1, CLASSES):
            if (truth == kind).any():
                both = ((marked == kind) & (truth == kind)).sum()
                scores.append(2 * both / ((marked == kind).sum() + (truth == kind).sum()))
print(f"validation Dice {{np.mean(scores):.3f}}")
torch.save(network.state_dict(), {weights!r})
'''

PRIOR = """counts = sum(np.bincount(batch()[1].flatten(), minlength=CLASSES) for _ in range(100))
frequencies = torch.tensor(counts / counts.sum()).clamp_min(1e-6)
with torch.no_grad():  # the head starts from how frequent each class is (Lin et al. 2017)
    {bias}.copy_(frequencies.log() - frequencies.log().mean())
"""

ONE_CYCLE = "torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)"

WSD = (
    "torch.optim.lr_scheduler.LambdaLR(\n"
    "    optimizer, lambda step: min(1, (step + 1) / {warmup}, "
    "1 - max(0, step / STEPS - 0.8) / 0.2 + 1e-9)\n)"
)

FLAT = "torch.optim.lr_scheduler.ConstantLR(optimizer, 1)"

TRAINER = '''"""A trainer of nnU-Net with {label}, after a sweep of lossbench over {data}.

Written by `lossbench export`; put it into nnunetv2/training/nnUNetTrainer and train with -tr {name}. Network,
patches, rate and length are nnU-Net's own.
"""

import numpy as np
import torch
{imports}
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

# How frequent each class is in the training images.
FREQUENCIES = {frequencies}


class {name}(nnUNetTrainer):
    def _build_loss(self):
{void}        loss = {make}
        if not self.enable_deep_supervision:
            return loss
        # Each coarser output counts half as much, and the coarsest nothing, as in nnU-Net's own trainer.
        weights = np.array([1 / 2**n for n in range(len(self._get_deep_supervision_scales()))])
        weights[-1] = 0
        return DeepSupervisionWrapper(loss, weights / weights.sum())
{prior}'''

TRAINER_PRIOR = """
    def initialize(self):
        super().initialize()
        logs = torch.tensor(FREQUENCIES).clamp_min(1e-6).log()
        for name, value in self.network.named_parameters():
            if "seg_layers" in name and name.endswith("bias"):
                with torch.no_grad():  # the heads start from how frequent each class is
                    value.copy_(logs - logs.mean())
"""

# Their conversion decides it: dataset.json may have no label for what is void here.
TRAINER_VOID = """        ignored = self.label_manager.ignore_label  # None where no label is called "ignore"
"""

TRAINER_NAME = "nnUNetTrainerLossbench"


def export(experiment: Experiment, loss: str, library: str) -> str:
    """Return a training script, or of nnU-Net a trainer, for a loss of an experiment's first data set.

    The recipe is that of the longest training. UserError where the library does not have the loss."""
    cell = _cell(experiment, loss)
    data = get_dataset(cell.data, cell.seed, experiment.extra_files)
    # SMP lists the foreground classes by number, so its code depends on how many there are.
    own = code(cell.loss, library, len(data.classes))
    if own is None:
        has = [other.text for other in experiment.losses if code(other, library)]
        rest = f"; of this experiment's losses it has {', '.join(has)}" if has else ""
        raise UserError(f"{library} has no '{cell.loss.text}'{rest}")
    if library == "nnunet":
        return _trainer(cell, data, own)
    # A refusal now: a script that fails in its first step would cost its reader more.
    if data.dims == 3 and library == "smp":
        raise UserError("smp trains on 2-D images, these data are 3-D; export to monai")
    return _script(cell, data, own, library)


def _cell(experiment: Experiment, loss: str) -> Cell:
    """Return the cell of a loss at the longest training on the first data set."""
    # By the canonical spec: another spelling of a loss names the same one.
    wanted, cells = parse_loss(loss, experiment.extra_files).text, experiment.cells()
    first = [cell for cell in cells if cell.data.text == cells[0].data.text]
    own = [cell for cell in first if cell.loss.text == wanted]
    if not own:
        known = list(dict.fromkeys(cell.loss.text for cell in first))
        raise UserError(f"--use {loss}: it is not among the losses of this experiment{nearest(loss, known)}")
    # What was recommended was read at the longest training, so its rate and schedule are the ones to pass on.
    return max(own, key=lambda cell: cell.recipe.steps)


def _script(cell: Cell, data: Any, own: Code, library: str) -> str:
    recipe = cell.recipe
    imports, network, bias, predict, divisor = NETWORKS[library]
    # Loss and network may ask for the same line.
    imports = "\n".join(dict.fromkeys([*own.imports.splitlines(), *imports.splitlines()]))
    # A constant rate is a schedule as well, since the script steps one in any case.
    schedules = {"one_cycle": ONE_CYCLE, "wsd": WSD.format(warmup=max(1, recipe.warmup))}
    return SCRIPT.format(
        label=cell.loss.label,
        data=cell.data_label,
        imports=_sorted(imports),
        steps=recipe.steps,
        batch=recipe.batch,
        patch=_sides(recipe.patch, data, divisor),
        share=parse_sampler(recipe.sampler).share,
        rate=cell.learning_rate,
        decay=recipe.weight_decay,
        classes=len(data.classes),
        spec=cell.data.text,
        make=own.make,
        call=own.call,
        network=network,
        prior=PRIOR.format(bias=bias) if recipe.head == "prior" else "",
        schedule=schedules.get(recipe.schedule, FLAT),
        padded=PADDED if library == "smp" else "",
        predict=predict,
        weights=f"{library}.pt",
    )


def _trainer(cell: Cell, data: Any, own: Code) -> str:
    make, void = own.make, has_void(data)
    if void:
        if not own.void:
            raise UserError(
                f"these data have void pixels (ignore_index={data.ignore_index}), which nnU-Net's "
                f"'{cell.loss.text}' cannot leave out; take ce or dice_ce, which can"
            )
        make = own.without("ignored")
    # Of whole images: nnU-Net draws its patches in its own way.
    counts = data.counts[data.split["train"]].sum(0)
    return TRAINER.format(
        label=cell.loss.label,
        data=cell.data_label,
        name=TRAINER_NAME,
        imports=own.imports,
        void=TRAINER_VOID if void else "",
        frequencies=[round(float(share), 8) for share in counts / counts.sum()],
        make=make,
        prior=TRAINER_PRIOR if cell.recipe.head == "prior" else "",
    )


def _sides(patch: Any, data: Any, divisor: int) -> tuple[int, ...]:
    """Return the sides of a patch, as multiples of what the network wants."""
    sides = patch or (data.shape or (64,) * data.dims)
    sides = (sides,) * data.dims if isinstance(sides, int) else tuple(sides)
    # Rounded down: a patch that is larger than the image would be mostly padding.
    return tuple(max(divisor, side // divisor * divisor) for side in sides)


# Loss and network bring their imports in any order; what is written should look as a person writes it.
def _sorted(imports: str) -> str:
    """Return import lines as a person sorts them: plain ones first."""
    lines = imports.splitlines()
    return "\n".join(sorted(lines, key=lambda line: (line.startswith("from"), line)))
