"""The page of a subject: what it says, that it is safe, whole and small."""

from __future__ import annotations

import base64
import itertools
import json
import re
import stat
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.bids.tables import MorphRow
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, write_labels
from deepmrseg_bids.reports.subject import page as module
from deepmrseg_bids.reports.subject.page import SessionResult, TaskResult, write_subject_report
from deepmrseg_bids.reports.subject.slices import (
    Outline,
    PlaneSlices,
    Slice,
    SliceSet,
    draw_slices,
)
from deepmrseg_bids.tasks.regions import Region
from deepmrseg_bids.tasks.registry import find_task
from deepmrseg_bids.tasks.spec import Figure

EVIL = "<script>alert('x')</script>\"'&"
TABLE = LabelTable((Label(1, "Left-Caudate"), Label(2, "Right-Caudate"), Label(3, "Stem")))
VOID = {"meta", "img", "input", "br", "link", "hr"}


@dataclass(frozen=True)
class Row:
    index: int
    name: str
    volume_mm3: float | None
    volume_low_mm3: float | None = None
    volume_high_mm3: float | None = None
    volume_icv_percent: float | None = None
    confidence: float | None = None
    volume_floor_mm3: float | None = None
    below_floor: bool = False
    volume_brain_percent: float | None = None


ROWS = (
    Row(1, "Left-Caudate", 4000.4, 3900.0, 4100.0, 0.2511, 0.93),
    Row(2, "Right-Caudate", 3600.0, 3500.0, 3700.0, 0.23, 1.2),
    Row(3, "Stem", None),
)


METHODS = {
    "Text": "Segmented structures: caudate and thalamus (left and right).",
    "Models": {"deepbrain": {"TrainingData": "thirty heads", "Licence": "CC BY 4.0"}},
}


class Page(HTMLParser):
    """Tags with their attributes, text, and tags that do not close in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.broken: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> TaskResult:
    folder = tmp_path_factory.mktemp("images")
    grid = Grid((30, 32, 28), np.diag([-2.0, -2.0, 3.0, 1.0]))
    rng = np.random.default_rng(1)
    scan, dseg = folder / "sub-01_T1w.nii.gz", folder / "sub-01_dseg.nii.gz"
    write_labels(scan, LabelMap(rng.integers(0, 255, grid.shape).astype(np.uint8), grid))
    labels = np.zeros(grid.shape, np.uint8)
    labels[16:22, 10:20, 10:20] = 1
    labels[6:12, 10:20, 10:20] = 2
    write_labels(dseg, LabelMap(labels, grid))
    return TaskResult(find_task("deepbrain"), "done", "", scan, dseg, TABLE, ROWS, 12.4)


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pictures are tested elsewhere: here they are a few bytes, and their limits are noted."""
    limits: list[int] = []

    def picture(*_: object, style: Figure, limit: int) -> SliceSet:
        limits.append(limit)
        one = Slice(repr(style).encode(), "x = +1 mm", True, (Outline(1, "#ff0000", "M0 0l1 1z"),))
        return SliceSet((PlaneSlices("Axial", tuple("LRPA"), (2, 2), (1.0, 1.0), (one,)),), False)

    monkeypatch.setattr(module, "draw_slices", picture)
    return limits


def write(folder: Path, *sessions: SessionResult, **changes: str) -> Page:
    path = folder / "sub-01.html"
    options = {"version": "1.2.3", "command": "deepmrseg-bids in out participant"} | changes
    models = {"deepbrain": "2.0.0 0123456789ab"}
    write_subject_report(
        path, sessions, version=options["version"], command=options["command"], models=models
    )
    page = Page(path)
    assert not page.broken and not page.open
    return page


def unfinished(task: str, status: str, reason: str) -> TaskResult:
    return TaskResult(find_task(task), status, reason, None, None, None, ())


def test_a_page_shows_volumes_interval_share_confidence_and_asymmetry(
    tmp_path: Path, done: TaskResult
) -> None:
    text = write(tmp_path, SessionResult("01", "1", (done,))).text
    for piece in ("4,000", "3,900 to 4,100", "0.251", "0.93", "+10.5", "mm³", "12 s"):
        assert piece in text
    assert "1.00" in text and "1.20" not in text  # a confidence ends at 1
    assert text.index("Left Caudate") < text.index("Right Caudate") < text.index("Stem")


def test_large_volumes_are_in_millilitres(tmp_path: Path, done: TaskResult) -> None:
    brain = replace(done, spec=find_task("brain"), rows=(Row(1, "brain", 1_516_500.0),))
    text = write(tmp_path, SessionResult("01", None, (brain,))).text
    assert "1,516.5" in text and "Volumes in ml" in text and "n/a" in text


def test_the_summary_has_every_session_and_task_with_status_and_reason(
    tmp_path: Path, done: TaskResult
) -> None:
    page = write(
        tmp_path,
        SessionResult("01", "1", (done, unfinished("wml", "skipped", "no FLAIR image"))),
        SessionResult("01", "2", (unfinished("deepbrain", "failed", "no brain found"),)),
    )
    summary = page.text[: page.text.index("Session 1 Viewer")]
    for piece in ("done", "skipped", "no FLAIR image", "failed", "no brain found", "not requested"):
        assert piece in summary


def test_only_what_was_done_in_this_run_says_how_long_it_took(
    tmp_path: Path, done: TaskResult
) -> None:
    resumed = replace(done, status="resumed", seconds=0.0)
    sessions = (SessionResult("01", "1", (done,)), SessionResult("01", "2", (resumed,)))
    summary = write(tmp_path, *sessions).text.partition("Session 1 Viewer")[0]
    assert re.findall(r"(\w+) (\d+) s\b", summary) == [("done", "12")]


SEEN = Finding("sform-qform-differ", "warning", "sform and qform differ")


def test_findings_and_notes_are_shown(tmp_path: Path, done: TaskResult) -> None:
    session = SessionResult("01", None, (done,), (SEEN,), ("run-2 was left out",))
    text = write(tmp_path, session).text
    assert (
        "Warning : sform and qform differ" in text
        and SEEN.code in text
        and "run-2 was left out" in text
    )


def test_every_string_is_escaped(tmp_path: Path, done: TaskResult) -> None:
    table = LabelTable((Label(1, EVIL), Label(2, "Left-" + EVIL)))
    rows = tuple(replace(row, name=f"{row.name}{EVIL}") for row in ROWS)
    evil = replace(find_task("deepbrain"), title=EVIL, description=EVIL, methods=EVIL)
    made = {"Methods": {"Text": EVIL, "Models": {EVIL: {EVIL: EVIL}}}, "Software": {EVIL: EVIL}}
    sessions = (
        SessionResult(
            EVIL,
            EVIL,
            (
                replace(done, spec=evil, table=table, rows=rows, reason=EVIL, provenance=made),
                replace(done, rows=(), table=table),
                replace(done, image=Path(f"/nowhere/{EVIL}.nii.gz")),
                replace(unfinished("brain", "failed", EVIL), spec=evil),
                unfinished("wml", EVIL, EVIL),
            ),
            (Finding("oblique", "error", EVIL),),
            (EVIL,),
        ),
    )
    path = tmp_path / "evil.html"
    write_subject_report(path, sessions, version=EVIL, command=EVIL, models={EVIL: EVIL})
    page = Page(path)
    assert not page.broken and not page.open
    kinds = [given.get("type") for given in page.all("script")]
    assert kinds.count(None) == 4  # page.js, ratings.js, subject.js and lesions.js
    assert {"application/gzip", "application/json", None} >= set(kinds)
    assert "<script>alert" not in page.source
    assert all(name.isascii() and "'" not in name for _, given in page.tags for name in given)
    assert "alert('x')" in page.text


def test_the_page_needs_no_network(tmp_path: Path, done: TaskResult) -> None:
    page = write(tmp_path, SessionResult("01", "1", (done,)))
    links = [a.get("href") or "" for a in page.all("a") + page.all("link")]
    sources = [str(a["src"]) for a in page.all("img")]
    assert links and all(link.startswith("#") for link in links)
    assert sources and all(source.startswith("data:image/") for source in sources)
    for outside in ("http:", "https:", "@import", "url("):
        assert outside not in page.source


def test_the_page_can_be_read_aloud(tmp_path: Path, done: TaskResult) -> None:
    page = write(tmp_path, SessionResult("01", "1", (done,)), SessionResult("01", "2", (done,)))
    assert page.all("html") == [{"lang": "en"}]
    assert all(len(image["alt"] or "") > 40 for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) == 4
    assert all("scope" in cell for cell in page.all("th"))
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(set(ids)) == len(ids)
    assert {str(a["href"])[1:] for a in page.all("a")} <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))


@pytest.mark.parametrize("which", ["image", "dseg"])
def test_a_missing_file_is_named_in_the_page_and_the_volumes_stay(
    tmp_path: Path, done: TaskResult, which: str
) -> None:
    broken = replace(done, **{which: tmp_path / "gone.nii.gz"})  # type: ignore[arg-type]
    page = write(tmp_path, SessionResult("01", None, (broken, done)))
    said = {"image": "Contours without the scan", "dseg": "No image available:"}
    assert said[which] in page.text and "gone.nii.gz: no such file" in page.text
    drawn = [one for one in page.all("img") if "Borderline:" not in str(one["alt"])]  # no guide
    assert len(drawn) == {"image": 2, "dseg": 1}[which]
    assert page.text.count("4,000") == 4  # two tables and the change


def test_methods_name_only_what_was_done_with_its_model_and_the_paper(
    tmp_path: Path, done: TaskResult
) -> None:
    done = replace(done, provenance={"Methods": METHODS})
    session = SessionResult("01", None, (done, unfinished("wml", "skipped", "no FLAIR image")))
    text = write(tmp_path, session).text
    methods = text[text.index("Text for a manuscript") :]
    assert "thalamus" in methods and "(model 2.0.0 0123456789ab)." in methods
    assert "lesions" not in methods.lower()
    assert "arXiv:1907.02110" in methods and "deepmrseg-bids in out participant" in methods


def test_methods_and_terms_are_those_of_the_bundles_that_ran(
    tmp_path: Path, done: TaskResult
) -> None:
    known = replace(done, provenance={"Methods": METHODS})
    text = write(tmp_path, SessionResult("01", None, (known,))).text
    assert METHODS["Text"].removesuffix(".") in text
    assert "thirty heads" in text and "CC BY 4.0" in text
    other = {"Text": "Segmented structures: nuts.", "Models": {"deepbrain": {"Licence": "mine"}}}
    text = write(
        tmp_path, SessionResult("01", None, (replace(done, provenance={"Methods": other}),))
    ).text
    assert "Segmented structures: nuts" in text and "mine" in text
    assert "thalamus" not in text and "CC BY 4.0" not in text


@pytest.mark.parametrize(
    "methods", [None, "text", 3, [], {}, {"Text": 3}, {"Models": 3}, {"Models": {"a": 3}}]
)
def test_methods_that_a_sidecar_does_not_state_do_not_stop_the_page(
    tmp_path: Path, done: TaskResult, methods: object
) -> None:
    odd = replace(done, provenance={"Methods": methods})
    assert "Text for a manuscript" in write(tmp_path, SessionResult("01", None, (odd,))).text


def test_where_nothing_was_done_there_is_no_methods_text_to_paste(tmp_path: Path) -> None:
    text = write(tmp_path, SessionResult("01", None, (unfinished("wml", "failed", "broken"),))).text
    assert "Text for a manuscript" not in text and "broken" in text


def test_a_volume_below_the_floor_of_its_model_says_so(tmp_path: Path, done: TaskResult) -> None:
    rows = [MorphRow(1, "Left-Caudate", 800.0, 0.0, 2000.0, None, 0.3, None, 1500.0)]
    page = write(tmp_path, SessionResult("01", None, (replace(done, rows=rows),)))
    assert "below 1.5 ml: not distinguishable from none" in page.text
    above = [replace(rows[0], volume_mm3=1500.0)]
    page = write(tmp_path, SessionResult("01", None, (replace(done, rows=above),)))
    assert "not distinguishable" not in page.text


def test_the_pictures_of_many_sessions_share_the_room_of_one_page(
    tmp_path: Path, done: TaskResult, pictures: list[int]
) -> None:
    write(tmp_path, *(SessionResult("01", f"{n}", (done,)) for n in range(30)))
    assert len(pictures) == 30
    assert sum(pictures) * 4 / 3 < 3_700_000


def test_a_page_with_its_real_pictures_is_small(
    tmp_path: Path, done: TaskResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "draw_slices", draw_slices)
    page = write(tmp_path, SessionResult("01", None, (done,)))
    image, *others = page.all("img")
    assert len(others) > 15
    data = base64.b64decode(str(image["src"]).partition(",")[2])
    assert data[:4] == b"RIFF"
    assert data[8:12] == b"WEBP"
    assert (tmp_path / "sub-01.html").stat().st_size < 2_500_000


def test_the_viewer_has_each_label_map_on_its_own_scan(tmp_path: Path, done: TaskResult) -> None:
    flair, grid = tmp_path / "sub-01_FLAIR.nii.gz", Grid((20, 20, 9), np.diag([3.0, 3, 3, 1]))
    noise = np.arange(3600, dtype=np.uint16).reshape(20, 20, 9)
    write_labels(flair, LabelMap(noise, grid))
    marked = tmp_path / "sub-01_space-FLAIR_dseg.nii.gz"
    write_labels(marked, LabelMap((noise > 3000).astype(np.uint8), grid))
    lesions = replace(done, spec=find_task("wml"), image=flair, dseg=marked)
    page = write(tmp_path, SessionResult("01", None, (done, lesions)))
    ids = [tag["id"] for tag in page.all("script") if tag.get("type") == "application/gzip"]
    own = [one for one in ids if not one.startswith("library")]
    assert own == [f"{kind}-1-session-{k}" for kind in ("scan", "map") for k in (0, 1)]
    (places,) = re.findall(r'id="places-1-session">(.*?)</script>', page.source)
    assert [(one["task"], one["scan"]) for one in json.loads(places)] == [
        ("deepbrain", 0), ("wml", 1),
    ]  # fmt: skip


def test_a_label_map_that_cannot_be_read_costs_the_viewer_itself_alone(
    tmp_path: Path, done: TaskResult
) -> None:
    broken = replace(done, spec=find_task("hippocampus"), dseg=tmp_path / "none.nii.gz")
    page = write(tmp_path, SessionResult("01", None, (broken, done)))
    (places,) = re.findall(r'id="places-1-session">(.*?)</script>', page.source)
    assert [one["task"] for one in json.loads(places)] == ["deepbrain"]


def test_the_same_results_give_the_same_bytes(tmp_path: Path, done: TaskResult) -> None:
    first = write(tmp_path, SessionResult("01", "1", (done,))).source
    assert write(tmp_path, SessionResult("sub-01", "ses-1", (done,))).source == first


def test_a_page_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, done: TaskResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write(tmp_path, SessionResult("01", None, (unfinished("wml", "failed", "x"),))).source

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DatasetError, match="disk full"):
        write(tmp_path, SessionResult("01", None, (done,)))
    assert [path.name for path in tmp_path.iterdir()] == ["sub-01.html"]
    assert (tmp_path / "sub-01.html").read_text(encoding="utf-8") == before


def test_a_page_is_readable_as_any_new_file_of_the_user(tmp_path: Path, done: TaskResult) -> None:
    write(tmp_path, SessionResult("01", None, (unfinished("wml", "failed", "x"),)))
    (tmp_path / "other").touch()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_file_name_that_is_no_text_does_not_stop_the_page(tmp_path: Path) -> None:
    write(tmp_path, SessionResult("01", None, (unfinished("wml", "failed", "bad \udcff name"),)))


def test_results_of_no_or_several_subjects_are_refused(tmp_path: Path, done: TaskResult) -> None:
    with pytest.raises(ValueError, match="one subject"):
        write(tmp_path)
    with pytest.raises(ValueError, match="one subject"):
        write(tmp_path, SessionResult("01", None, (done,)), SessionResult("02", None, (done,)))


def test_a_long_table_is_closed_and_grouped_and_composite_regions_come_first(
    tmp_path: Path, done: TaskResult
) -> None:
    names = [f"{side}-Part-{k:02}" for k in range(20) for side in ("Left", "Right")]
    rows = tuple(Row(k, name, 1000.0 + k) for k, name in enumerate(names, start=1))
    front, back = tuple(range(1, 21)), tuple(range(21, 39))
    composition = (Region(1, "All", (*front, *back)), Region(2, "Left-Front", front[::2]),
                   Region(3, "Right-Front", front[1::2]), Region(4, "Left-Back", back[::2]),
                   Region(5, "Right-Back", back[1::2]))  # fmt: skip
    regions = tuple(Row(one.index, one.name, 9000.0) for one in composition)
    long = replace(done, rows=rows, regions=regions, composition=composition)
    page = write(tmp_path, SessionResult("01", None, (long,)))
    assert page.all("details")[0] == {"class": "many"}
    for one, other in itertools.pairwise(
        ["Left Front", "All 40 structures", "Front Left Part 00", "Back Left Part 10",
         "Other Left Part 19"]
    ):  # fmt: skip
        assert page.text.index(one) < page.text.index(other)
    short = write(tmp_path, SessionResult("01", None, (done,)))
    assert not [one for one in short.all("details") if one.get("class") == "many"]
