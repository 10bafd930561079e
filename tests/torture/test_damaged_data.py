"""Damaged data of a user, of every kind that is read: inspected and opened as a sweep does, or refused."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
from damage import damage, refusal, twist
from PIL import Image
from rich.console import Console
from scipy.io import savemat

from command import command
from lossbench.catalogue.registry import get_dataset
from lossbench.cli import data as datasets
from lossbench.data.inspection import inspect


def pictures(folder: Path) -> None:
    """Write images/ beside masks/, as PNG."""
    draw = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(6):
        mask = np.zeros((16, 16), np.uint8)
        mask[4:9, number : number + 5] = 1
        image = (mask * 90 + draw.integers(0, 60, mask.shape)).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


def arrays(folder: Path) -> None:
    """Write the same as NPY."""
    pictures(folder)
    for file in [*folder.glob("*/*.png")]:
        np.save(file.with_suffix(".npy"), np.asarray(Image.open(file)))
        file.unlink()


def task(folder: Path) -> None:
    """Write dataset.json, imagesTr and labelsTr as NIfTI."""
    draw = np.random.default_rng(0)
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    for number in range(6):
        mask = np.zeros((8, 8, 4), np.uint8)
        mask[2:5, 2:6, 1:3] = 1
        image = (mask * 90 + draw.integers(0, 60, mask.shape)).astype(np.int16)
        (folder / "imagesTr" / f"c{number}.nii.gz").write_bytes(nifti(image))
        (folder / "labelsTr" / f"c{number}.nii.gz").write_bytes(nifti(mask))
    pairs = [{"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"} for n in range(6)]
    described = {
        "name": "toy",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "thing"},
        "numTraining": 6,
        "training": pairs,
    }
    (folder / "dataset.json").write_text(json.dumps(described))


def nifti(values: np.ndarray) -> bytes:
    """Return a volume as a gzipped NIfTI file with a spacing of 1."""
    head = bytearray(352)
    head[:4] = (348).to_bytes(4, "little")
    head[40:56] = np.array([3, *values.shape, 1, 1, 1, 1], "<i2").tobytes()
    head[70:72] = np.array([4 if values.dtype == np.int16 else 2], "<i2").tobytes()
    head[76:108] = np.array([1, 1, 1, 1, 0, 0, 0, 0], "<f4").tobytes()
    head[108:112] = np.array([352], "<f4").tobytes()
    head[344:348] = b"n+1\0"
    return gzip.compress(bytes(head) + values.tobytes(order="F"))


def benchmark_file(folder: Path) -> None:
    """Write a MedSegBench file: one NPZ."""
    folder.mkdir(parents=True)
    mask = np.zeros((6, 16, 16), np.uint8)
    mask[:, 4:9, 4:9] = 1
    kept = {}
    for split in ("train", "val", "test"):
        kept |= {f"{split}_images": mask * 90, f"{split}_label": mask}
    np.savez_compressed(folder / "toy.npz", **kept)


def coco(folder: Path) -> None:
    """Write the images with squares as COCO outlines."""
    pictures(folder)
    shutil.rmtree(folder / "masks")
    entries = [{"id": n, "file_name": f"{n}.png"} for n in range(6)]
    square = [[4.0, 4, 9, 4, 9, 9, 4, 9]]
    objects = [{"image_id": n, "category_id": 1, "area": 25, "segmentation": square} for n in range(6)]
    described = {"images": entries, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "coco.json").write_text(json.dumps(described))


def labelme(folder: Path) -> None:
    """Write the images with triangles as LabelMe outlines."""
    pictures(folder)
    shutil.rmtree(folder / "masks")
    shape = {"label": "thing", "points": [[4, 4], [9, 4], [9, 9]], "shape_type": "polygon"}
    for n in range(6):
        described = {"imagePath": f"{n}.png", "shapes": [shape]}
        (folder / "images" / f"{n}.json").write_text(json.dumps(described))


def yolo(folder: Path) -> None:
    """Write the images with triangles as YOLO outlines."""
    pictures(folder)
    shutil.rmtree(folder / "masks")
    (folder / "labels").mkdir()
    for n in range(6):
        (folder / "labels" / f"{n}.txt").write_text("0 0.2 0.2 0.6 0.2 0.6 0.6\n")
    (folder / "data.yaml").write_text("names: [thing]\n")


def table(folder: Path) -> None:
    """Write pairs.csv with groups and parts, and one mask as MAT."""
    pictures(folder)
    savemat(folder / "masks" / "0.mat", {"mask": np.asarray(Image.open(folder / "masks" / "0.png"))})
    suffixes = [".mat", *[".png"] * 5]
    rows = "".join(
        f"images/{n}.png,masks/{n}{suffix},{'test' if n > 3 else 'train'},{n}\n"
        for n, suffix in enumerate(suffixes)
    )
    (folder / "pairs.csv").write_text(f"image,mask,split,group\n{rows}")


def named_arrays(folder: Path) -> None:
    """Write HDF5 files that hold an image and a label."""
    folder.mkdir(parents=True)
    for number in range(6):
        with h5py.File(folder / f"{number}.h5", "w") as file:
            file["image"] = np.random.default_rng(number).normal(size=(4, 16, 16)).astype(np.float32)
            file["label"] = np.tile(np.eye(16, dtype=np.uint8), (4, 1, 1))


KINDS = (pictures, arrays, task, benchmark_file, coco, labelme, yolo, table, named_arrays)


def test_damaged_data_of_a_user_are_refused_in_a_sentence_or_read(size, draw, seen, tmp_path, monkeypatch):
    cache, folder = tmp_path / "cache", tmp_path / "case"
    monkeypatch.setenv("LOSSBENCH_CACHE", str(cache))
    console = Console(file=io.StringIO(), width=150)
    for kind in KINDS:
        kind(tmp_path / kind.__name__)
    for number in range(size(few=40, full=1000)):
        kind = KINDS[number % len(KINDS)]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / kind.__name__, folder)
        path = str(folder / "toy.npz" if kind is benchmark_file else folder)
        spec = f"folder(path={path!r})"
        if number % 10 == 9:
            # The prepared arrays are damaged instead of the files that they were made from.
            get_dataset(spec, 0)
            injure([file for file in cache.rglob("*") if file.suffix in (".npy", ".json")], draw)
        else:
            injure([file for file in folder.rglob("*") if file.is_file()], draw)
        inspected = refusal(lambda: console.print(datasets.render_inspection(inspect(path))))  # noqa: B023
        opened = refusal(lambda: get_dataset(spec, 0))  # noqa: B023
        for what, refused in (("inspections", inspected), ("openings", opened)):
            seen[f"{what} refused" if refused else f"{what} read"] += 1
        if number % 50 == 0:
            done = command(tmp_path, "inspect", path)
            assert done.code in (0, 2) and (done.out + done.err).strip()
        if number % 50 == 0 and opened:  # else it would train
            results = str(tmp_path / "results")
            assert command(tmp_path, "sweep", "smoke", "--data", path, "--results", results).code == 2
        if number % 10 == 9:
            shutil.rmtree(cache, ignore_errors=True)
    assert seen["openings refused"] > 5


def injure(files: list[Path], draw: random.Random) -> None:
    """Damage one or two of the files, NIfTI within its compression as a rule."""
    files = sorted(files)
    for file in draw.sample(files, min(len(files), draw.choice([1, 1, 2]))):
        raw = file.read_bytes()
        if file.suffix == ".json" and draw.random() < 0.5:
            file.write_bytes(twist(json.loads(raw), draw))
        elif file.name.endswith(".nii.gz") and draw.random() < 0.7:
            file.write_bytes(gzip.compress(damage(gzip.decompress(raw), draw)))
        else:
            file.write_bytes(damage(raw, draw))
