from __future__ import annotations

import re
from importlib.resources import files

import pytest

STYLE = (files("billhook.report") / "page" / "style.css").read_text(encoding="utf-8")
LIGHT, DARK = STYLE.split("@media (prefers-color-scheme: dark)")[:2]
DARK = DARK[: DARK.index("\n}")]

ON_RAISED = ("text", "muted", "accent", "accent-2", "good", "bad", "cold")
PAIRS = [
    *((name, "raised") for name in ON_RAISED),
    *((name, "page") for name in ON_RAISED),
    ("good", "good-soft"),
    ("bad", "bad-soft"),
    ("cold", "cold-soft"),
    ("text", "even-soft"),
]


def colours(css: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", css))


def luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the ratio of WCAG 2: 1 for equal colours, 21 for black on white."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("css", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "background"), PAIRS)
def test_text_can_be_read(css: str, text: str, background: str) -> None:
    known = colours(css)
    assert contrast(known[text], known[background]) >= 4.5


@pytest.mark.parametrize("css", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_of_runs_can_be_seen(css: str) -> None:
    known = colours(css)
    runs = [known[f"run-{i}"] for i in range(1, 9)]
    assert len(set(runs)) == 8
    assert min(contrast(run, known["raised"]) for run in runs) >= 3


def test_light_and_dark_define_the_same_colours() -> None:
    assert colours(LIGHT).keys() == colours(DARK).keys()


def test_the_style_loads_nothing() -> None:
    assert "url(" not in STYLE
    assert "@import" not in STYLE
