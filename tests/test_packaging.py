"""What is in the archives that people install: the wheel holds the package and the experiments, the source
archive all that the suite is made of, but no results.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def shipped(folder: str) -> set[str]:
    """Return the files below a folder of the checkout, without what Python leaves there."""
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    (path,) = SdistBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(path)


def test_the_wheel_holds_the_package_the_experiments_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = {name.removeprefix("benchmark/") for name in shipped("benchmark/lossbench")}
    assert names == package | {f"lossbench/{name}" for name in shipped("experiments")}


def test_the_wheel_works_in_a_folder_of_its_own(wheel, tmp_path):
    wheel.extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-m", "lossbench", "plan", "smoke"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "cells" in done.stdout, done.stderr


def test_the_source_archive_holds_the_suite_but_no_results(source):
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Makefile", "README.md", "tools/house.py", "tests/test_packaging.py"} <= names
    assert shipped("benchmark/lossbench") <= names
    assert {name.partition("/")[0] for name in names} & {"results", ".venv", ".git", "dist"} == set()
    assert source.stat().st_size < 5_000_000
