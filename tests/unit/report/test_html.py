from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from billhook.errors import InputError, MissingExtraError, StorageError
from billhook.report import write_html
from billhook.report.html import html_report
from billhook.run_record import Distance, LayerChange, Results, Run, Sparsity
from tests.unit.report.fabricated import DIRECTORY, EVIL, hostile_run, one_run, replace_results, several_runs

FETCHING = {"src", "srcset", "href", "data", "action", "formaction", "poster", "background", "ping"}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self._inside_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside_script = tag == "script"
        if self._inside_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside_script = False

    def handle_data(self, data: str) -> None:
        if self._inside_script:
            self.scripts[-1] += data
        elif data.strip():
            self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(html_report([one_run()]))


@pytest.fixture(scope="module")
def hostile() -> Page:
    return Page(html_report([hostile_run()]))


def test_the_page_holds_each_part_of_the_run(page: Page) -> None:
    text = "\n".join(page.texts)
    for part in (
        "2.31× faster",
        "−0.44 points",
        "3.05× smaller",
        "7.98–8.91 ms, median of 60",
        "Fabricated for tests: none of these numbers was measured.",
        "stages.2.2.conv1.weight",
        "output of the network (net.py:42)",
        "softmax over heads (net.py:31)",
        "round_to = 4",
        "made-up processor",
        "86.7% of the bound",
        "Removing the channels equals silencing them, on every operator.",
        "15 of 20 layers are narrower",
        "12 groups: 9 cut,",
    ):
        assert part in text, part
    assert set(json.loads(page.scripts[0])) == {"run-0-path", "run-0-channels", "run-0-training"}


def test_the_page_asks_the_network_for_nothing(page: Page, hostile: Page) -> None:
    for each in (page, hostile, Page(html_report(several_runs()))):
        addresses = [v for _, attributes in each.elements for k, v in attributes.items() if k in FETCHING]
        assert sorted(set(addresses)) == ["#main", "data:,"]
        assert not {"iframe", "object", "embed", "base", "form", "img"} & {t for t, _ in each.elements}


def test_the_policy_allows_the_two_scripts_and_no_connection(page: Page) -> None:
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    _, *scripts = page.scripts
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "http" not in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]


def test_no_name_becomes_markup(page: Page, hostile: Page) -> None:
    assert len(hostile.all("script")) == len(page.all("script")) == 3
    assert not hostile.all("img")
    assert not any(key.startswith("on") for _, attributes in hostile.elements for key in attributes)
    assert "{{ 7 * 7 }}" in "".join(hostile.texts)  # shown as it is, not computed
    assert "<" not in hostile.scripts[0]


def test_every_table_has_headers_and_every_plot_a_description(page: Page) -> None:
    assert len(page.all("table")) == 6
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    plots = [d for d in page.all("div") if "data-figure" in d]
    assert len(plots) == 3
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    assert page.all("html") == [{"lang": "en"}]
    assert [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)][:3] == [1, 2, 2]


def test_identifiers_are_unique_in_a_comparison() -> None:
    comparison = Page(html_report(several_runs()))
    identifiers = [a["id"] for _, a in comparison.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    assert len([a for a in comparison.all("details") if a.get("class") == "run"]) == 4
    text = " ".join(comparison.texts)
    assert "Comparison of 4 runs" in text
    assert "one interleaved run" in text


@pytest.mark.parametrize(
    ("status", "sentence"), [("interrupted", "This run was interrupted"), ("failed", "This run failed")]
)
def test_a_run_that_did_not_end_says_so_first(status: str, sentence: str) -> None:
    texts = Page(html_report([replace_results(one_run(), status=status, notes=("disk full",))])).texts
    assert texts.index(sentence) < texts.index("Latency")
    assert "disk full" in texts


def test_what_was_fused_and_what_was_not_is_a_list() -> None:
    notes = (
        "fused: add_identity at layer1.0, layer1.1",
        "not fused: add_identity at layer2.0: the branch does not end in a convolution",
        "lowered: the shortcuts of layer1.1 run as 1×1 convolutions that copy channels",
    )
    page = Page(html_report([replace_results(one_run(), notes=notes)]))
    assert page.texts.index("Notes") < page.texts.index(notes[0])
    assert set(notes) <= set(page.texts)


def test_a_run_that_reached_nothing_has_a_page_too() -> None:
    page = Page(html_report([Run(DIRECTORY, Results("early", "net", "", "yesterday", "failed"))]))
    assert page.scripts[0] == "{}"
    assert "not verified" in page.texts


def test_the_file_appears_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_html([one_run()], path) == path
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_name_that_utf8_cannot_hold_is_no_reason_to_fail(tmp_path: Path) -> None:
    run = replace(replace_results(one_run(), name="a\ud800b"), recipe="\ud800")
    assert "a?b" in write_html([run], tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=r"nowhere/report\.html: the report cannot be written: No such file"
    ):
        write_html([one_run()], tmp_path / "nowhere" / "report.html")


def test_without_plotly_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingExtraError, match=r'needs the library .plotly.*"billhook\[report\]"'):
        html_report([one_run()])


def test_no_run_is_the_callers_mistake() -> None:
    with pytest.raises(InputError, match="at least one run"):
        html_report([])


def test_the_hostile_text_is_hostile() -> None:
    assert "<script>" in EVIL


def test_patterns_have_a_picture_and_a_table() -> None:
    layers = (
        LayerChange("conv1", "conv2d", 16, 12, weights=1000, kept=200, pattern="4x1"),
        LayerChange("head", "linear", 10, 10, weights=160, kept=120),
    )
    run = replace(replace_results(one_run(), sparsity=Sparsity(1, 750, 200, 200, True)), layers=layers)
    page = html_report([run])
    figures = json.loads(next(s for s in Page(page).scripts if s.lstrip().startswith('{"run-0')))
    assert figures["run-0-weights"]["data"][0]["x"] == [20.0, 75.0]
    assert "73.3 % of 750 weights in 1 tensor are zero" in page
    assert re.search(r"<code>conv1</code></th><td>12 of 16</td><td>4x1</td><td>1,000</td><td>200</td>", page)
    assert re.search(r"<code>head</code></th><td>10 of 10</td><td>dense</td><td>160</td><td>120</td>", page)


def test_without_patterns_nothing_is_said_of_weights_per_layer() -> None:
    assert "Weights per layer" not in html_report([one_run()])


def test_a_way_towards_the_patterns_has_a_picture_and_a_table() -> None:
    way = (Distance(0, 0.5, 0.25), Distance(10, 0.0625, None))
    page = html_report([replace_results(one_run(), distances=way)])
    assert 'data-figure="run-0-distances"' in page
    assert "<td>0.0625</td><td>–</td>" in page
    assert "Towards the patterns" not in html_report([one_run()])
