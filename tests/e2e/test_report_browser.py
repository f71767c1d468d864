"""The HTML report as a browser shows it: plots drawn, nothing fetched, no complaint in the console."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from billhook.report import write_html
from billhook.run_record import Run
from tests.unit.report.fabricated import deep_run, hostile_run, one_run, several_runs

Pixels = npt.NDArray[np.uint8]
Browse = Callable[..., str]

AXES = r'<svg class="main-svg"[^>]*style="background'  # one of the layers of SVG that a plot has

PAGES: dict[str, Callable[[], list[Run]]] = {
    "one": lambda: [one_run()],
    "several": several_runs,
    "deep": lambda: [deep_run(200)],
    "hostile": lambda: [hostile_run()],
}


@pytest.fixture
def browse(chromium: Path, tmp_path: Path) -> Browse:
    """Open a page and return what chromium writes to stdout; a word in the console fails the test.

    The proxy leads nowhere and every name resolves to nothing, so a page that wants the network complains.
    """

    def run(page: Path, *options: str, width: int = 1280, height: int = 1000, dark: bool = False) -> str:
        program = [
            str(chromium),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--virtual-time-budget=10000",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--window-size={width},{height}",
            *options,
            page.as_uri(),
        ]
        done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    return run


def picture(browse: Browse, page: Path, to: Path, *, height: int = 2600, dark: bool = False) -> Pixels:
    browse(page, f"--screenshot={to}", height=height, dark=dark)
    return np.asarray(Image.open(to).convert("RGB"))


def shades(pixels: Pixels) -> int:
    return len(np.unique(pixels.astype(np.uint32) @ np.array([1, 2**8, 2**16], np.uint32)))


def share_of(pixels: Pixels, colour: tuple[int, int, int]) -> float:
    return float((pixels == np.array(colour, np.uint8)).all(axis=2).mean())


@pytest.mark.parametrize(("name", "plots"), [("one", 3), ("several", 1), ("deep", 3), ("hostile", 3)])
def test_every_visible_plot_is_drawn(browse: Browse, tmp_path: Path, name: str, plots: int) -> None:
    page = write_html(PAGES[name](), tmp_path / f"{name}.html")
    dom = browse(page, "--dump-dom")
    drawn = re.search(r'data-drawn="(\d+)"', dom)
    assert drawn is not None, "the script did not come to its end"
    assert int(drawn[1]) == plots
    assert len(re.findall(AXES, dom)) == plots


def test_names_stay_text_in_the_plots(browse: Browse, tmp_path: Path) -> None:
    dom = browse(write_html([hostile_run()], tmp_path / "hostile.html"), "--dump-dom")
    body = re.sub(r"<script\b.*?</script>", "", dom[dom.index("<body") :], flags=re.DOTALL)
    assert not re.search(r"<(img|iframe|object|embed|script)\b", body)
    assert set(re.findall(r'\s(?:xlink:)?href="([^"]*)"', body)) == {"#main"}
    assert "onerror=alert(1)&gt;" in body


def use(page: Path, script: str) -> Path:
    """Return a copy of the page, without the policy, on which somebody does what `script` does."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    used = page.with_name("used.html")
    used.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return used


@pytest.mark.parametrize(
    ("words", "state", "shown"),
    [
        ("", "", "12 of 12"),
        ("CONV1 stages.0.1", "", "1 of 12"),
        ("net.py", "frozen", "1 of 12"),
    ],
)
def test_groups_can_be_searched(browse: Browse, tmp_path: Path, words: str, state: str, shown: str) -> None:
    script = f"""
        const [search, state] = ["input", "select"].map((tag) => document.querySelector(".filter " + tag));
        search.value = "{words}"; search.dispatchEvent(new Event("input"));
        state.value = "{state}"; state.dispatchEvent(new Event("change"));
    """
    page = use(write_html([one_run()], tmp_path / "one.html"), script)
    dom = browse(page, "--dump-dom")
    assert f'<output aria-live="polite">{shown}</output>' in dom
    rows = re.findall(r'<tr data-state="\w+"( hidden="")?>', dom)
    assert f"{rows.count('')} of {len(rows)}" == shown


def test_a_run_of_a_comparison_is_drawn_when_it_is_opened(browse: Browse, tmp_path: Path) -> None:
    script = 'document.querySelectorAll("details.run")[1].open = true;'
    dom = browse(use(write_html(several_runs(), tmp_path / "several.html"), script), "--dump-dom")
    assert len(re.findall(AXES, dom)) == 1 + 3


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_has_the_colours_of_the_scheme(browse: Browse, tmp_path: Path, dark: bool) -> None:
    page = write_html([one_run()], tmp_path / "one.html")
    pixels = picture(browse, page, tmp_path / "one.png", dark=dark)
    background, raised, bars = (
        ((14, 20, 19), (22, 30, 29), (45, 212, 191))
        if dark
        else ((244, 246, 246), (255, 255, 255), (15, 118, 110))
    )
    assert share_of(pixels, background) > 0.1
    assert share_of(pixels, raised) > 0.3
    assert share_of(pixels, bars) > 0.005, "the bars of the compressed layers are missing"
    assert shades(pixels) > 300


def test_a_phone_shows_the_whole_width(browse: Browse, tmp_path: Path) -> None:
    write_html([one_run()], tmp_path / "one.html")
    write_html(several_runs(), tmp_path / "several.html")
    for name in ("one", "several"):
        # A browser window cannot be 380 pixels wide, a frame can. It tells its inner width by its title.
        frame = tmp_path / "frame.html"
        frame.write_text(f'<iframe src="{name}.html" width="380" height="4000" style="border: 0"></iframe>')
        browse(frame, f"--screenshot={tmp_path / 'phone.png'}", width=600, height=4000)
        pixels = np.asarray(Image.open(tmp_path / "phone.png").convert("RGB"))
        inside = pixels[8:3900, 8:388]
        margin = inside[:, -6:]
        assert share_of(margin, (244, 246, 246)) > 0.99, "something sticks out of the page to the right"
        assert shades(inside) > 150


@pytest.mark.parametrize(("name", "least", "most"), [("one", 3, 8), ("several", 10, 32)])
def test_on_paper_everything_is_unfolded(
    browse: Browse, tmp_path: Path, name: str, least: int, most: int
) -> None:
    page = write_html(PAGES[name](), tmp_path / f"{name}.html")
    browse(page, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer", dark=True)
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert least <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= most
