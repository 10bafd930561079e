"""What only a browser can show: sorting, filtering and the theme work, by keyboard too; skipped where there is no
Chromium.
"""

import json
import re
import shutil
import subprocess

import pytest

from benchmark import report
from benchmark.analysis.tables import write_tables

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=5000",
)

CHECK = """
<script>
window.addEventListener("load", () => {
  const facts = {errors: window.failures};
  const board = document.querySelector("table.board");
  const column = (n) => [...board.tBodies[0].rows].map((row) => row.cells[n].textContent.trim());
  const heads = [...board.tHead.rows[0].cells];
  const hd95 = heads.findIndex((h) => h.textContent.startsWith("HD95"));
  const button = heads[hd95].querySelector("button");
  button.focus();
  facts.focused = document.activeElement === button;
  button.click();
  facts.rising = column(hd95);
  facts.sort = heads[hd95].getAttribute("aria-sort");
  button.click();
  facts.falling = column(hd95);
  heads[1].querySelector("button").click();
  facts.names = column(1);
  const form = document.querySelector("form.filters");
  const selects = [...form.querySelectorAll("select")];
  selects[2].value = "dice";
  selects[2].dispatchEvent(new Event("change", {bubbles: true}));
  const shown = [...document.getElementById("effects-table").tBodies[0].rows].filter((row) => !row.hidden);
  facts.shown = [...new Set(shown.map((row) => row.cells[2].textContent.trim()))];
  facts.output = form.querySelector("output").textContent;
  const ink = () => getComputedStyle(document.body).color;
  const before = ink();
  document.getElementById("theme").click();
  facts.themes = [before, ink(), document.documentElement.dataset.theme];
  const page = document.documentElement;
  facts.overflow = page.scrollWidth - page.clientWidth;
  facts.tooWide = [...document.querySelectorAll("section")].filter((s) => s.scrollWidth > s.clientWidth + 1).map((s) =>
  s.id); document.body.setAttribute("data-facts", JSON.stringify(facts));
});
</script>
"""


@pytest.fixture(scope="module")
def facts(tables, tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    folder = tmp_path_factory.mktemp("browser")
    write_tables(tables, folder / "tables")
    report.make(folder)
    text = (folder / "report.html").read_text()
    watch = "<script>window.failures = []; window.onerror = (m) => window.failures.push(String(m));</script>"
    (folder / "checked.html").write_text(text.replace("<style>", watch + "<style>", 1).replace("</body>", CHECK + "</body>"))
    found = {}
    for width in (1200, 420):
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / str(width)}", f"--window-size={width},900", "--dump-dom"]
        done = subprocess.run([*command, f"file://{folder / 'checked.html'}"], capture_output=True, text=True, timeout=120, check=False)
        place = re.search(r'data-facts="([^"]*)"', done.stdout)
        assert place, done.stderr[-2000:]
        found[width] = json.loads(place[1].replace("&quot;", '"'))
    return found


def test_the_scripts_run_without_an_error(facts):
    assert facts[1200]["errors"] == []


def test_a_column_sorts_by_value_both_ways_and_says_so(facts):
    rising = [float(v) for v in facts[1200]["rising"]]
    assert rising == sorted(rising) and facts[1200]["falling"] == facts[1200]["rising"][::-1]
    assert facts[1200]["sort"] == "ascending" and facts[1200]["focused"]


def test_a_column_of_names_sorts_by_name(facts):
    assert facts[1200]["names"] == sorted(facts[1200]["names"])


def test_a_filter_shows_only_the_rows_asked_for_and_counts_them(facts):
    assert facts[1200]["shown"] == ["dice"]
    assert re.fullmatch(r"36 of 108 rows", facts[1200]["output"])


def test_the_theme_switches_between_light_and_dark(facts):
    before, after, name = facts[1200]["themes"]
    assert before != after and name in ("light", "dark")


@pytest.mark.parametrize("width", [1200, 420])
def test_the_page_never_scrolls_sideways_as_a_whole(facts, width):
    assert facts[width]["overflow"] <= 0 and facts[width]["tooWide"] == []
