from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_page_of_the_policy_has_its_evaluation() -> None:
    text = (ROOT / "docs" / "reference-policy.md").read_text()
    block = text.partition("written by ros-vla-accel train: begin -->")[2]
    block = block.partition("<!-- evaluation: end -->")[0]
    assert "| pick-place |" in block
