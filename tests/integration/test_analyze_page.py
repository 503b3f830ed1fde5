# SPDX-License-Identifier: Apache-2.0
"""The page of `frostfork analyze --html`, opened in a headless Chromium with neither network nor server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("plotly")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here to open the page with"
)

NASTY = """<script>alert(1)</script>&"'@@.py"""

# The page in a frame as wide as a phone, and what a reader would see of it, written into the frame's parent.
PROBE = """<!DOCTYPE html><body><iframe id="frame" src="page.html" style="width:%dpx;height:900px;border:0"></iframe>
<script>
const look = () => {
  const page = document.getElementById("frame").contentDocument;
  if (!page || !page.body || page.body.dataset.drawn !== "yes") return setTimeout(look, 100);
  const seen = {};
  for (const name of ["treemap", "overlap", "scatter"]) {
    const box = page.getElementById(name).getBoundingClientRect();
    seen[name] = {width: box.width, height: box.height, marks: page.querySelectorAll(
      {treemap: "#treemap .slice", overlap: "#overlap .hm image", scatter: "#scatter .point"}[name]).length};
  }
  const button = page.querySelector('[data-measure="bytes"]');
  button.click();
  const head = [...page.querySelectorAll("th button")].find((each) => each.textContent === "seconds");
  head.click();
  const column = head.closest("th").cellIndex;
  const numbers = [...head.closest("table").tBodies[0].rows].map((row) => Number(row.cells[column].dataset.value));
  seen.sorted = numbers.every((value, at) => at === 0 || value <= numbers[at - 1]);
  seen.pressed = button.getAttribute("aria-pressed");
  seen.width = page.documentElement.scrollWidth;
  seen.space = page.documentElement.clientWidth;
  seen.texts = page.body.innerText;
  seen.scripts = page.querySelectorAll("script").length;
  seen.background = getComputedStyle(page.body).backgroundColor;
  seen.paper = page.querySelector("#scatter .main-svg").style.backgroundColor;
  document.body.textContent = "SEEN" + btoa(unescape(encodeURIComponent(JSON.stringify(seen)))) + "SEEN";
};
look();
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analyze")
    jobs = folder / "jobs <b>&"
    jobs.mkdir()
    (jobs / "a.py").write_text("import csv, wave, xml.dom.minidom")
    (jobs / "b.py").write_text("import csv, asyncio")
    (jobs / NASTY.replace("/", "")).write_text("raise ValueError('</script><img src=x onerror=alert(2)>@@')")
    done = subprocess.run(
        [sys.executable, "-m", "frostfork", "analyze", "--no-airflow", "--html", str(folder / "page.html"), str(jobs)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "page.html"


def browse(page: Path, width: int, *options: str) -> tuple[dict[str, object], str]:
    """What the probe saw, and what the browser said."""
    probe = page.with_name(f"probe-{width}.html")
    probe.write_text(PROBE % width)
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--allow-file-access-from-files", "--host-resolver-rules=MAP * ~NOTFOUND",
            "--disable-background-networking",
            "--enable-logging=stderr", "--virtual-time-budget=60000", "--window-size=2000,1000",
            f"--user-data-dir={page.parent / 'profile'}", *options, "--dump-dom", f"file://{probe}",
        ],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    found = re.search("SEEN([A-Za-z0-9+/=]+)SEEN", done.stdout)
    assert found is not None, f"the page was not drawn: {done.stderr[-2000:]}"
    import base64

    return json.loads(base64.b64decode(found[1])), done.stderr


@needs_chromium
@pytest.mark.parametrize("width", [390, 1920])
def test_the_page_is_drawn_without_an_error_and_fits(page: Path, width: int) -> None:
    seen, said = browse(page, width)
    complaints = [line for line in said.splitlines() if "CONSOLE" in line]
    assert not complaints
    for name in ("treemap", "overlap", "scatter"):
        figure = seen[name]
        assert isinstance(figure, dict)
        assert figure["marks"] > 0 and figure["width"] > 300 and figure["height"] > 200, name
    assert seen["width"] == seen["space"], "the page scrolls sideways"
    assert seen["sorted"] is True
    assert seen["pressed"] == "true"


@needs_chromium
def test_names_and_messages_stay_text(page: Path) -> None:
    seen, _ = browse(page, 390)
    text = seen["texts"]
    assert isinstance(text, str)
    assert "</script><img src=x onerror=alert(2)>@@" not in text, "the files' table is folded"
    assert seen["scripts"] == 3
    source = page.read_text()
    assert "<img" not in source
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(2)&gt;@@" in source
    assert "&lt;script&gt;alert(1)&lt;script&gt;&amp;&quot;&#x27;@@.py" in source


@needs_chromium
def test_the_page_is_dark_where_the_reader_wants_it_so(page: Path) -> None:
    light, _ = browse(page, 390)
    dark, _ = browse(page, 390, "--blink-settings=preferredColorScheme=0")
    assert light["background"] == light["paper"] == "rgb(255, 255, 255)"
    assert dark["background"] == dark["paper"] != light["background"]


def test_the_page_asks_for_nothing_from_elsewhere(page: Path) -> None:
    source = page.read_text()
    without_library = re.sub(r"<script>.*?</script>", "", source, flags=re.DOTALL)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", without_library)
    assert "@import" not in without_library and "url(" not in without_library


def test_five_hundred_files_are_still_a_page() -> None:
    from frostfork.cli.analyze_html import _MOST_ROWS, page

    names = [f"/dags/file_{at:03}.py" for at in range(500)]
    result = {
        "files": 500, "import_seconds": 9.0, "notes": [],
        "environment": dict.fromkeys(("python", "frostfork", "kernel", "machine", "cores"), "x"),
        "estimate": {"saving": 1.0, "saving_per_file": 0.1, "verified_files": 0, "plain_cpu_seconds": 0,
                     "preloaded_cpu_seconds": 0},
        "plan": {"modules": 0, "seconds": 0, "bytes": 0, "refused": {}},
        "modules": [], "distributions": [], "configuration": {"airflow": "", "python": ""},
        "sources": [{"path": name, "outcome": "ok", "seconds": 1, "cpu_seconds": None, "import_seconds": 1, "bytes": 0,
                     "modules": 1, "saving": 0, "lazy": [], "error": ""} for name in names],
        "overlap": [{"files": [name], "seconds": {}} for name in names],
    }  # fmt: skip
    text = page(result)
    assert f"The {_MOST_ROWS} lines with most seconds are shown; 460 files are in 460 others." in text
    assert text.count("file_499.py") == 1, "all files are in the table"
