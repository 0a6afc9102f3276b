"""A page tells in its head which tables it shows, and by its end that it is whole."""

from pathlib import Path

import pytest

from deepmrseg_bids.bids.pages import TABLES_MARK, page_shows

MARK = f'<meta name="{TABLES_MARK}" content="sub-01_seg-a_morph.tsv sub-01_seg-b_morph.tsv">\n'
BODY = "x" * 200_000 + "sub-01_seg-c_morph.tsv"


def written(folder: Path, text: str) -> Path:
    page = folder / "sub-01.html"
    page.write_text(text, encoding="utf-8")
    return page


@pytest.mark.parametrize(
    ("tables", "shown"),
    [
        ([], True),
        (["sub-01_seg-a_morph.tsv"], True),
        (["sub-01_seg-b_morph.tsv", "sub-01_seg-a_morph.tsv"], True),
        (["sub-01_seg-c_morph.tsv"], False),  # its text says so, not its head
        (["sub-01_seg-a_morph.tsv", "sub-01_seg-d_morph.tsv"], False),
        (["seg-a_morph.tsv"], False),
    ],
)
def test_a_page_shows_what_its_head_lists(tmp_path: Path, tables: list[str], shown: bool) -> None:
    page = written(tmp_path, f"<head>{MARK}</head>{BODY}</html>\n")
    assert page_shows(page, tables) is shown


@pytest.mark.parametrize("table", ["sub-01_seg-c_morph.tsv", "sub-01_seg-d_morph.tsv"])
def test_a_page_of_an_earlier_version_is_searched(tmp_path: Path, table: str) -> None:
    page = written(tmp_path, f"<head></head>{BODY}</html>\n")
    assert page_shows(page, [table]) is (table in BODY)


def test_half_a_page_shows_nothing(tmp_path: Path) -> None:
    for text in (f"<head>{MARK}</head>{BODY}", "", MARK, f"</html>{BODY}"):
        assert not page_shows(written(tmp_path, text), [])
    with pytest.raises(FileNotFoundError):
        page_shows(tmp_path / "none.html", [])
