"""The command line as a user meets it: real processes, the real engine, real interruptions."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import command, lossbench
from lossbench.engine.tasks import EngineOptions
from tiny import TINY

pytestmark = pytest.mark.system

OWN = """
from lossbench import loss

@loss("mine", family="overlap", cite="me")
def mine(logits, target, *, power=2.0, ignore_index=None):
    error = (logits.softmax(1)[:, 1] - (target == 1).float()).abs()
    return (error ** power).mean()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "my_loss.py").write_text(OWN)
    return tmp_path


def start(folder, *words):
    """Start a command as a process of its own, for what only a process can show."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "lossbench", *words], cwd=folder, text=True, **pipes)


def records(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "results" / "cells").rglob("*.json")}


def test_a_sweep_trains_all_then_nothing_then_only_what_is_new(folder):
    out, err = start(folder, "sweep", "tiny.toml").communicate(timeout=300)
    first = out + err
    assert "4 cells = 2 losses x 1 data set x 2 seeds" in first and "trained 4 cells" in first
    before = records(folder)
    assert len(before) == 4 and (folder / "results" / "report.html").is_file()
    # What the report said of these data it did not say of others, and the command is the user's own.
    others = ["tiny.toml", "--results", "results", "--data", "scenes(size=32)"]
    assert "tiny: not yet learnt" in lossbench(folder, "status", "tiny.toml")
    said = lossbench(folder, "status", *others)
    assert "learnt" not in said and said.endswith(f"to train them: lossbench sweep {shlex.join(others)}\n")

    again = lossbench(folder, "sweep", "tiny.toml", "--no-report")
    assert "nothing to train" in again and "\ntrained" not in again and records(folder) == before

    added = lossbench(folder, "sweep", "tiny.toml", "--with", "my_loss.py", "--serial")
    assert "trained 2 cells" in added
    # Scenes have no recommendation; their board is printed, with what collapsed.
    board = re.search(r"^Dice     tiny: (.*)$", added, re.M)[1]
    assert set(re.findall(r"(\w+) [.\d]+(?: \([12] of 2 collapsed\))?", board)) == {"ce", "dice", "mine"}
    after = records(folder)
    assert len(after) == 6 and all(after[name] == stamp for name, stamp in before.items())
    assert "mine" in (folder / "results" / "report.html").read_text()

    for old, new, why in (
        ("steps = 4", "steps = 5", "recorded with other settings (steps)"),
        ("n_val=6", "n_val=8", "recorded with other settings (n_val)"),
        ("seeds = 2", "seeds = [7, 8]", "never run"),
    ):
        (folder / "other.toml").write_text(TINY.replace(old, new))
        assert f"4 cells of ce, dice, seeds {'7, 8' if 'seeds' in old else '0, 1'}  {why}" in lossbench(
            folder, "status", "other.toml", "--why"
        )

    (folder / "my_loss.py").write_text(OWN.replace("** power", "** (power + 1)"))
    why = lossbench(folder, "status", "tiny.toml", "--with", "my_loss.py", "--why")
    assert "4 done" in why and "2 stale" in why and "loss 'mine'" in why
    assert "trained 2 cells" in lossbench(
        folder, "sweep", "tiny.toml", "--with", "my_loss.py", "--serial", "--no-report"
    )
    assert all(records(folder)[name] == stamp for name, stamp in before.items())


def test_the_serial_and_the_parallel_engine_give_the_same_bits(folder):
    lossbench(folder, "sweep", "tiny.toml", "--no-report", "--results", "a")
    lossbench(folder, "sweep", "tiny.toml", "--no-report", "--results", "b", "--serial")
    for one in (folder / "a" / "cells").rglob("*.json"):
        other = folder / "b" / one.relative_to(folder / "a")
        left, right = json.loads(one.read_text()), json.loads(other.read_text())
        assert all(
            left[part] == right[part]
            for part in ("metrics", "images", "curves", "steps", "certificate", "threshold_curve")
        )


def test_an_interrupted_sweep_says_how_to_go_on_and_resumes(folder):
    long = TINY.replace("steps = 4", "steps = 60").replace("seeds = 2", "seeds = 6")
    (folder / "tiny.toml").write_text(long)
    process = start(folder, "sweep", "tiny.toml", "--no-report", "--workers", "2")
    deadline = time.monotonic() + 120
    while (
        not list((folder / "results").rglob("cells/*/*.json"))
        and time.monotonic() < deadline
        and process.poll() is None
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    done = len(records(folder))
    if process.returncode == 0:  # a very fast machine finished first
        assert done == 12
        return
    assert process.returncode == 130 and "lossbench sweep tiny.toml" in err and "Traceback" not in err
    assert 0 < done < 12
    assert f"trained {12 - done} cells" in lossbench(folder, "sweep", "tiny.toml", "--no-report", "--serial")
    assert len(records(folder)) == 12


def test_json_lines_are_all_that_stdout_holds(folder):
    done = command(folder, "sweep", "tiny.toml", "--serial", "--json-lines")
    kinds = {json.loads(line)["kind"] for line in done.out.splitlines()}
    assert {"cell", "result"} <= kinds and "trained 4 cells" in done.err and "report.html" in done.err


def test_two_sweeps_at_once_train_each_cell_once(folder):
    both = [start(folder, "sweep", "tiny.toml", "--no-report", "--serial") for _ in range(2)]
    texts = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert len(records(folder)) == 4 and not list((folder / "results").rglob("*.error.json"))


def test_a_sweep_of_which_all_cells_fail_is_no_misuse(folder):
    (folder / "my_loss.py").write_text(
        OWN.replace("return (error", "assert logits.shape[0] == 2, 'no'\n    return (error")
    )
    (folder / "tiny.toml").write_text(TINY.replace('["ce", "dice"]', '["mine"]'))
    text = lossbench(folder, "sweep", "tiny.toml", "--with", "my_loss.py", "--serial", code=1)
    assert "failed: loss 'mine': AssertionError" in text and "2 cells have no record" in text


def test_a_loss_that_raises_fails_alone_with_its_reason(folder):
    (folder / "my_loss.py").write_text(
        OWN.replace("return (error", "assert logits.shape[0] == 2, 'no'\n    return (error")
    )
    text = lossbench(folder, "sweep", "tiny.toml", "--with", "my_loss.py", "--serial", "--no-report", code=1)
    assert "failed: loss 'mine': AssertionError in step 1: no (2 cells)" in text
    assert len([name for name in records(folder) if "error" not in name]) == 4
    assert "failed" in lossbench(folder, "status", "tiny.toml", "--with", "my_loss.py", "--why")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["sweep", "tinny.toml"], "no experiment file 'tinny.toml'"),
        (["sweep", "tiny.toml", "--with", "nothing.py"], "there is no such file"),
        (["sweep", "tiny.toml", "--loss", "dise"], "did you mean 'dice'"),
        (["sweep", "tiny.toml", "--loss", "dice(over='smaple')"], "sample"),
        (["sweep", "tiny.toml", "--loss", "focal(gamma=-1.0)"], "gamma"),
        (["sweep", "tiny.toml", "--data", "no_such_folder/"], "there is no such folder"),
        (["sweep", "tiny.toml", "--data", "nosuchfolder"], "there is no such folder"),
        (["sweep", "tiny.toml", "--data", ""], "there is no such folder"),
        (["sweep", "tiny.toml", "--results", "my_loss.py"], "my_loss.py"),
        (["report", "--results", "empty"], "lossbench sweep"),
        (["list", "losses", "dise"], "did you mean 'dice'"),
        (["check", "dise"], "did you mean 'dice'"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(folder, arguments, part):
    code, _, err = command(folder, *arguments)
    assert code == 2 and part in err and len(err.strip().splitlines()) == 1
    assert not (folder / "results" / "cells").exists() or not records(folder)


@pytest.mark.parametrize("mistake", [("--shard", "9/5"), ("--budget", "5x"), ("--keep", "all")])
def test_a_mistyped_option_is_refused_before_a_folder_is_made(folder, mistake):
    assert f"{mistake[0]} {mistake[1]}: " in lossbench(folder, "sweep", "tiny.toml", *mistake, code=2)
    assert not (folder / "results").exists()


def test_help_comes_without_torch():
    code = (
        "import sys; sys.argv = ['lossbench', '--help']\ntry:\n import lossbench.cli.main as c; "
        "c.main()\nexcept SystemExit: pass\n"
    )
    code += (
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules and 'distributed' not in "
        "sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=60)


def test_the_version_is_told(folder):
    from lossbench import __version__

    assert lossbench(folder, "--version").strip() == f"lossbench {__version__}"


def test_the_report_is_made_where_torch_is_missing(folder, without_torch):
    lossbench(folder, "sweep", "tiny.toml", "--serial", "--no-report")
    block = without_torch + "sys.argv = ['lossbench', 'report']\nfrom lossbench.cli.main import main; main()"
    subprocess.run([sys.executable, "-c", block], check=True, cwd=folder, timeout=300)
    assert (folder / "results" / "report.html").stat().st_size > 10_000


def test_records_of_your_own_data_keep_no_path(folder):
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / "private" / "things" / kind).mkdir(parents=True)
    for number in range(10):
        mask = np.zeros((32, 32), np.uint8)
        mask[8:20, number : number + 10] = 1
        noisy = (mask * 120 + draw.integers(0, 60, mask.shape)).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "private" / "things" / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "private" / "things" / "masks" / f"{number}.png")
    planned = lossbench(folder, "plan", "tiny.toml", "--data", "private/things")
    assert "4 missing" in planned and "guess" not in planned  # a few steps of each loss were timed
    options = ("--serial", "--keep", "predictions")
    answer = lossbench(folder, "sweep", "tiny.toml", "--data", "private/things", *options)
    assert "trained 4 cells" in answer
    # Two seeds can show nothing, and the answer says so; the study's claims are left out.
    assert "one cannot tell: no loss is shown to be better" in answer and "train 6 or more" in answer
    assert "claims" not in answer
    # Of each of two losses the best cell keeps its weights, and what it marks, under the images' own names.
    kept = folder / "results" / "predictions"
    assert len(list((kept / "weights").glob("*.pt"))) == 2
    assert len(list(kept.glob("*/errors_*.png"))) == 1
    masks = list(kept.glob("*/*/*.png"))
    for image in masks:
        marked = np.asarray(Image.open(image))
        assert marked.shape == (32, 32) and set(np.unique(marked)) <= {0, 1}
    assert {image.stem for image in masks} <= {str(number) for number in range(10)}
    assert len(masks) == 2 * 2 and "worst    of" in answer
    # One's own data first: the answer, its figure, errors; no verdicts on claims, no aid for other data.
    page = (folder / "results" / "report.html").read_text()
    shown = re.findall(r'id="(answer|advice|verdicts|figure-leaderboard)"', page)
    assert shown == ["answer", "figure-leaderboard"]
    assert "Where they err" in page and "one cannot tell: no loss is shown to be better" in page
    for path in (folder / "results").rglob("*"):
        if path.is_file() and path.suffix in (".json", ".csv", ".html"):
            text = path.read_text()
            assert str(folder) not in text and "path='private" not in text, (
                path
            )  # only the command as typed may name it
    shutil.move(folder / "private" / "things", folder / "things")
    assert "nothing to train" in lossbench(folder, "sweep", "tiny.toml", "--data", "things", "--no-report")
    assert "as in --data path/to/things" in lossbench(folder, "verify", code=2)
    again = lossbench(folder, "verify", "--sample", "1", "--data", "things")
    assert "1 of 4 cells trained again: all as recorded (1 bit for bit)" in again
    for kind in ("images", "masks"):
        shutil.copy(folder / "things" / kind / "9.png", folder / "things" / kind / "10.png")
    why = lossbench(folder, "status", "tiny.toml", "--data", "things", "--why")
    assert "4 cells of ce, dice, seeds 0, 1  its data changed since it was recorded" in why


def test_a_damaged_record_is_set_aside_with_a_line_and_trained_again_at_once(folder):
    lossbench(folder, "sweep", "tiny.toml", "--serial", "--no-report")
    damaged = sorted((folder / "results" / "cells").rglob("*.json"))[0]
    damaged.write_bytes(damaged.read_bytes()[:400])
    text = lossbench(folder, "sweep", "tiny.toml", "--serial", "--no-report")
    assert damaged.name in text and "trained 1 cells" in text
    assert len(records(folder)) == 4 and list((folder / "results" / "quarantine").iterdir())


def test_data_that_cannot_be_used_stop_the_sweep_before_it_starts(folder):
    (folder / "mine" / "images").mkdir(parents=True)
    (folder / "mine" / "masks").mkdir()
    for kind in ("images", "masks"):
        (folder / "mine" / kind / "a.png").write_bytes(b"not a picture")
    text = lossbench(folder, "sweep", "tiny.toml", "--data", "mine", code=2)
    assert "a" in text and not list((folder / "results").rglob("cells/*/*.json"))


def test_two_folders_of_one_name_are_not_taken_for_one_data_set(folder):
    import numpy as np
    from PIL import Image

    for shade, place in enumerate(("a", "b")):
        for kind in ("images", "masks"):
            (folder / place / "data" / kind).mkdir(parents=True)
            for number in range(6):
                pixels = np.zeros((16, 16), np.uint8)
                pixels[4:9, number : number + 5] = 1 if kind == "masks" else 100 + 50 * shade
                Image.fromarray(pixels).save(folder / place / "data" / kind / f"{number}.png")
    text = lossbench(folder, "sweep", "tiny.toml", "--data", "a/data", "--data", "b/data", code=2)
    assert "rename one of the folders" in text


def test_the_loss_of_the_readme_keeps_the_contract(folder):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code = readme.split("```python\n# my_loss.py\n")[1].split("```")[0]
    (folder / "readme_loss.py").write_text(code)
    assert "FAIL" not in lossbench(folder, "check", "readme_loss.py")


EASY = """
name = "easy"
seeds = 8
lengths = [50, 200]
heads = ["prior"]
losses = ["ce", "dice", "dice_ce"]
datasets = ["folder(path='easy')"]
[recipe]
widths = [8, 16]
batch = 8
schedule = "wsd"
warmup = 10
validations = 1
"""


@pytest.mark.slow
def test_on_a_folder_on_which_nothing_differs_the_answer_is_no_difference_that_matters(folder):
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    for kind in ("images", "masks"):
        (folder / "easy" / kind).mkdir(parents=True)
    for number in range(60):  # large, clear discs
        y, x = draw.uniform(9, 23, 2)
        mask = (rows - y) ** 2 + (columns - x) ** 2 < draw.uniform(5, 9) ** 2
        image = 90 + 120 * mask + 20 * draw.normal(0, 1, mask.shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"easy/images/{number}.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / f"easy/masks/{number}.png")
    (folder / "easy.toml").write_text(EASY)
    answer = lossbench(folder, "sweep", "easy.toml")
    assert "there is no difference that matters: all 3 losses lie within a point. ce will do." in answer


def test_a_budget_on_ones_own_images_rests_on_a_few_timed_steps(folder):
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for number in range(6):
        mask = np.zeros((16, 16), np.uint8)
        mask[4:9, number : number + 5] = 1
        for kind, pixels in (("images", 100 + 50 * mask + draw.integers(0, 20, mask.shape)), ("masks", mask)):
            (folder / "mine" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "mine" / kind / f"{number}.png")
    (folder / "mine.toml").write_text(
        'name = "mine"\nseeds = 3\nlosses = ["ce", "dice"]\ndatasets = ["folder(path=\'mine\')"]\n'
        "[recipe]\nsteps = 20\nwidths = [4, 8]\nbatch = 2\n"
    )
    text = lossbench(folder, "sweep", "mine.toml", "--budget", "0.1s", "--serial", "--no-report")
    assert "mine: timing a few steps" in text and "a guess" not in text
    assert "2 of 6 cells chosen (0.1s)" in text and len(records(folder)) == 2
    assert "one block of all losses takes about" in text and "longer than the budget: trained whole" in text
    # What was trained says how long the rest takes.
    again = lossbench(folder, "sweep", "mine.toml", "--budget", "1h", "--serial", "--no-report")
    assert "timing" not in again and len(records(folder)) == 6
    looks = (folder / "mine.toml").read_text().replace("seeds = 3", "seeds = 12\nlooks = [10, 12]")
    (folder / "looks.toml").write_text(looks.replace('"mine"', '"looks"'))
    text = lossbench(folder, "sweep", "looks.toml", "--budget", "0.1s", "--serial", "--no-report")
    assert "too little for the look at 10 seeds, which takes about" in text


def test_a_budget_that_busy_cores_use_up_ends_the_sweep_without_a_failure(folder, monkeypatch):
    monkeypatch.setattr(EngineOptions, "over", True)
    text = lossbench(folder, "sweep", "tiny.toml", "--budget", "1h", "--serial", "--no-report")
    assert "the budget is over; 4 of these cells wait for the same command" in text
    monkeypatch.undo()
    text = lossbench(folder, "sweep", "tiny.toml", "--budget", "1h", "--serial", "--no-report")
    assert "trained 4 cells" in text and "budget is over" not in text


def test_a_loss_that_empties_the_path_of_imports_trains_first_in_its_process(folder):
    emptied = OWN.replace("    error =", "    import sys\n    sys.path[:] = []\n    error =")
    (folder / "my_loss.py").write_text(emptied)
    said = lossbench(folder, "sweep", "tiny.toml", "--with", "my_loss.py", "--serial", "--no-report")
    assert "trained 6 cells" in said and "failed" not in said
