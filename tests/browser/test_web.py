"""The page that segments in the browser, in a real one, with models that take milliseconds."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, BrowserContext, Error, Page
from scipy import ndimage

from deepmrseg_bids.bids.tables import write_morph
from deepmrseg_bids.findings import CODES
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import read_volume
from deepmrseg_bids.imaging.registration import Quality, RigidFit
from deepmrseg_bids.inference.bundle import NewBundle, Preparation
from deepmrseg_bids.inference.predictor import PredictorPool
from deepmrseg_bids.network import NetworkConfig, build_network
from deepmrseg_bids.session.publish import morph_rows
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.results import Segmentation
from deepmrseg_bids.tasks.wml import LesionSegmentation
from tests.browser.conftest import Watched, until
from tests.support import need, unavailable
from tests.tiny import level_network, threshold_network, tiny_head

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
FACTS = {"licence": "CC0 <b>é</b>", "volume_interval": {"Brain": [0.9, 1.2]}}


def script(name: str) -> ModuleType:
    """A script of web/, as a module."""
    spec = importlib.util.spec_from_file_location(name, WEB / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def needs_packages() -> None:
    """Skip where Node.js, or the packages of the page, are not installed; .ci/run has them."""
    need("node", "npm", package="Node.js 20 or newer")
    if not (WEB / "node_modules" / ".installed").exists():
        unavailable("the packages of web/ are not installed: make web")


def lesion_network() -> torch.nn.Module:
    """A network of slices that takes what is bright in their first channel for a lesion."""
    return threshold_network(NetworkConfig("deepmrseg", 2, 2, 2, width=4, depth=1), (4, 6.5))


def write_models(folder: Path) -> None:
    """Bundles of ``brain``, ``icv`` and ``wml`` that know levels of brightness."""
    network = level_network()
    skull = build_network(NetworkConfig("deepmrseg", 3, 1, 2, width=4, depth=1))
    state = {
        name: value[:2] if name.startswith("head") else value
        for name, value in network.state_dict().items()
    }
    skull.load_state_dict(state)
    table = LabelTable((Label(1, "Brain"), Label(2, "Deep")))
    window = Preparation(spacing=4.0, intensity="head", window=(24, 32, 24))
    brain = NewBundle("brain", network.config, window, table, network.state_dict(), "tiny", "", "",
                      FACTS)  # fmt: skip
    brain.write(folder / "brain")
    inside = LabelTable((Label(1, "Intracranial"),))
    for name in ("icv", "outline"):  # the outline is for finer scans: it is there, and not used
        made = replace(brain, task=name, network=skull.config, labels=inside, state=state)
        made.write(folder / name)
    slices = lesion_network()
    lesions = replace(brain, task="wml", network=slices.config, state=slices.state_dict(),
                      preparation=Preparation(spacing=4.0, intensity="brain"),
                      labels=LabelTable((Label(1, "White-Matter-Lesion"),)))  # fmt: skip
    lesions.write(folder / "wml")


def write_flair(path: Path) -> None:
    """The tiny head with three bright spots."""
    head = tiny_head(2)
    data = head.get_fdata()
    for x, y, z in ((16, 28, 22), (28, 24, 21), (27, 30, 20)):
        data[x - 1 : x + 2, y - 1 : y + 2, z : z + 2] += 140
    nib.save(nib.Nifti1Image(data.astype(np.float32), head.affine, head.header), path)


@dataclass
class Site:
    """The page on a host of this machine, and what belongs to it."""

    url: str
    folder: Path
    bundles: Path
    scan: Path
    flair: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    needs_packages()
    folder = tmp_path_factory.mktemp("web")
    write_models(folder / "bundles")
    environment = {**os.environ, "MODELS": str(folder / "models")}
    script("build_models").build(folder / "models", folder / "bundles")
    subprocess.run(
        ["npx", "vite", "build", "--logLevel", "error", "--outDir", str(folder / "dist")],
        cwd=WEB, env=environment, check=True,
    )  # fmt: skip
    scan = folder / "sub-01_T1w.nii.gz"
    nib.save(tiny_head(1), scan)
    flair = folder / "sub-01_FLAIR.nii.gz"
    write_flair(flair)
    with script("serve").server_of(folder / "dist") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(f"http://127.0.0.1:{server.server_port}/", folder, folder / "bundles", scan,
                   flair)  # fmt: skip
        server.shutdown()


@pytest.fixture(scope="module")
def context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield context
    context.close()


@pytest.fixture
def opened(context: BrowserContext, site: Site) -> Iterator[Watched]:
    """The page, ready for an image."""
    watched = Watched(context.new_page())
    watched.page.goto(site.url)
    watched.page.get_by_label("Brain", exact=True).wait_for()
    yield watched
    watched.page.close()


def segment(page: Page, scan: Path) -> None:
    page.set_input_files("#t1w", scan)
    page.get_by_role("button", name="Segment").click()
    page.locator("#result").wait_for(timeout=300_000)
    page.locator("#viewer[data-shown]").wait_for(timeout=300_000)


def all_ended(page: Page) -> None:
    """Wait until all workers of the page ended, and with them all of their memory."""
    until(page, lambda: not page.workers)


def refused(page: Page, scan: Path) -> str:
    """What the page says of a file that it cannot use."""
    page.set_input_files("#t1w", scan)
    page.get_by_role("button", name="Segment").click()
    page.locator("#problem").wait_for(timeout=300_000)
    text = page.locator("#problem").inner_text()
    assert page.locator("#result").is_hidden() and page.locator("#cancel").is_hidden()
    return text


def downloaded(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=button).first.click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def pool_of(site: Site) -> PredictorPool:
    paths = {path.name: path for path in site.bundles.iterdir()}
    return PredictorPool(paths, precision="float32")


DROP = """async (names) => {
    const transfer = new DataTransfer();
    for (const [name, place] of names) {
        const bytes = place ? await (await fetch(place)).arrayBuffer() : new Uint8Array(9);
        transfer.items.add(new File([bytes], name));
    }
    document.querySelector('#drop').dispatchEvent(
        new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


def test_a_dropped_scan_becomes_what_the_package_makes_of_it(
    opened: Watched, site: Site, tmp_path: Path
) -> None:
    page = opened.page
    (site.folder / "dist" / "scan.gz").write_bytes(site.scan.read_bytes())
    assert page.get_by_role("button", name="Segment").is_disabled()
    assert page.locator("#missing").inner_text() == "Choose a T1w image first."
    page.evaluate(DROP, [("sub-01_T1w.nii.gz", "scan.gz")])
    assert page.locator("#missing").inner_text() == ""
    page.get_by_role("button", name="Segment").click()
    page.locator("#result").wait_for(timeout=300_000)
    page.locator("#viewer[data-shown]").wait_for(timeout=300_000)

    ((_, expected),) = run({"T1w": read_volume(site.scan)}, ["brain"], pool_of(site))
    assert isinstance(expected, Segmentation)
    labels = downloaded(page, "Label map", tmp_path)
    assert labels.name == "sub-01_desc-brain_mask.nii.gz"
    found = nib.load(labels)
    assert np.array_equal(np.asarray(found.dataobj), expected.labels.data)
    assert np.allclose(found.affine, nib.load(site.scan).affine, atol=1e-5)
    table = downloaded(page, "Volumes", tmp_path)
    write_morph(tmp_path / "expected.tsv", morph_rows(expected))
    assert table.name == "sub-01_seg-brain_morph.tsv"
    assert table.read_text() == (tmp_path / "expected.tsv").read_text()
    rows = page.locator("section[data-task=brain] tbody tr").all_inner_texts()
    volume = f"{expected.measures[0].volume_mm3 / 1000:.2f}"
    assert len(rows) == 2 and rows[0].startswith("Brain") and volume in rows[0]
    notes = page.locator("#findings .finding").all_inner_texts()
    assert {f.message for f in expected.findings} <= {
        note.split(": ", 1)[1].rsplit(" ", 1)[0] for note in notes
    }
    assert downloaded(page, "Save picture", tmp_path).read_bytes()[:4] == b"\x89PNG"
    other = tmp_path / "other.nii.gz"
    other.write_bytes(site.scan.read_bytes())
    page.set_input_files("#t1w", other)  # the result remains that of the first scan
    assert downloaded(page, "Label map", tmp_path).name == labels.name
    assert opened.errors == []
    assert all(url.startswith((site.url, "blob:", "data:")) for url in opened.requests)


def test_lesions_of_an_aligned_flair_are_those_of_the_package(
    opened: Watched, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened.page
    page.get_by_label("White-matter lesions").check()
    page.set_input_files("#t1w", site.scan)
    assert page.locator("#missing").inner_text() == "Choose the FLAIR."
    page.set_input_files("#flair", site.flair)
    segment(page, site.scan)

    def unmoved(*_: object, **__: object) -> RigidFit:
        good = Quality(1.0, 1.0, edges=1.0)
        return RigidFit(np.eye(4), good, good)

    monkeypatch.setattr("deepmrseg_bids.tasks.coregistration.register_rigid", unmoved)
    images = {"T1w": read_volume(site.scan), "FLAIR": read_volume(site.flair)}
    results = dict(run(images, ["brain", "wml"], pool_of(site)))
    expected = results["wml"]
    assert isinstance(expected, LesionSegmentation) and expected.on_flair.data.any()
    part = page.locator("section[data-task=wml]")
    with page.expect_download() as waiting:
        part.get_by_role("button", name="Label map").click()
    assert waiting.value.suggested_filename == "sub-01_space-FLAIR_seg-wml_dseg.nii.gz"
    waiting.value.save_as(tmp_path / "wml.nii.gz")
    found = np.asarray(nib.load(tmp_path / "wml.nii.gz").dataobj)
    assert np.array_equal(found, expected.on_flair.data)
    lesions = ndimage.label(found, np.ones((3, 3, 3)))[1]
    assert f"{lesions} lesion" in part.inner_text()
    # each map on its own scan, however quickly they are chosen
    maps, pictures = page.locator("#map"), []
    for chosen in ("Brain", "White-matter lesions"):
        maps.select_option(label=chosen)
        task = "brain" if chosen == "Brain" else "wml"
        page.locator(f"#viewer[aria-busy=false][data-shown={task}]").wait_for(timeout=300_000)
        pictures.append(downloaded(page, "Save picture", tmp_path).read_bytes())
    page.evaluate("""() => { for (const n of [0, 1, 0, 1, 0]) {
        document.querySelector('#map').value = n;
        document.querySelector('#map').dispatchEvent(new Event('change')); } }""")
    page.locator("#viewer[aria-busy=false][data-shown=brain]").wait_for(timeout=300_000)
    assert downloaded(page, "Save picture", tmp_path).read_bytes() == pictures[0] != pictures[1]
    assert opened.errors == []


def test_a_dropped_flair_is_taken_for_one(opened: Watched) -> None:
    page = opened.page
    chosen = "['t1w', 'flair'].map((id) => document.getElementById(id).files[0]?.name ?? '')"
    lesions = page.get_by_label("White-matter lesions")
    page.evaluate(DROP, [("a_T1w.nii.gz", "")])
    assert page.evaluate(chosen) == ["a_T1w.nii.gz", ""] and not lesions.is_checked()
    page.evaluate(DROP, [("a_FLAIR.nii.gz", "")])
    assert page.evaluate(chosen) == ["a_T1w.nii.gz", "a_FLAIR.nii.gz"] and lesions.is_checked()
    page.evaluate(DROP, [("flair.nii", ""), ("a_space-FLAIR_T1w.nii.gz", "")])
    assert page.evaluate(chosen) == ["a_space-FLAIR_T1w.nii.gz", "flair.nii"]


def test_without_webgl_the_tables_are_complete_and_the_viewer_comes_back(
    opened: Watched, site: Site
) -> None:
    page = opened.page
    page.evaluate("""() => { const real = HTMLCanvasElement.prototype.getContext;
        window.restore = () => { HTMLCanvasElement.prototype.getContext = real; };
        HTMLCanvasElement.prototype.getContext = () => null; }""")
    page.set_input_files("#t1w", site.scan)
    page.get_by_role("button", name="Segment").click()
    page.get_by_text("viewer requires WebGL 2").wait_for(timeout=300_000)
    assert page.locator(".stage").is_hidden() and page.locator("#picture").is_disabled()
    assert page.locator("section[data-task=brain] tbody tr").count() == 2
    page.evaluate("restore()")
    segment(page, site.scan)
    assert page.locator(".stage").is_visible() and page.locator("#picture").is_enabled()
    assert page.locator("#no-viewer").is_hidden()


def test_the_models_are_named_with_their_terms(opened: Watched) -> None:
    rows = opened.page.locator("#models tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == ["brain", "icv", "outline", "wml"]
    assert "CC0 <b>é</b>" in rows[0] and "For research use only" in opened.page.content()


def test_files_that_cannot_be_used_are_refused_with_the_reason(
    opened: Watched, site: Site, tmp_path: Path
) -> None:
    page, scan = opened.page, site.scan.read_bytes()
    head = nib.load(site.scan)
    several = nib.Nifti1Image(np.stack([head.get_fdata()] * 2, axis=-1), head.affine)
    nib.save(several, tmp_path / "several.nii")
    fine = nib.Nifti1Header()
    fine.set_data_shape((512, 512, 384))
    fine.set_sform(np.diag([0.5, 0.5, 0.5, 1]), code=1)
    fine["magic"], fine["vox_offset"] = b"n+1", 352
    (tmp_path / "text.nii").write_text("x" * 400)
    (tmp_path / "cut.nii.gz").write_bytes(scan[: len(scan) // 2])
    (tmp_path / "short.nii").write_bytes(gzip.decompress(scan)[:-5000])
    (tmp_path / "fine.nii").write_bytes(fine.binaryblock + bytes(4))
    assert "found 44 x 52 x 40 x 2; extract one volume" in refused(page, tmp_path / "several.nii")
    assert "not a readable NIfTI image" in refused(page, tmp_path / "text.nii")
    assert "truncated or damaged" in refused(page, tmp_path / "cut.nii.gz")
    assert "the file is truncated" in refused(page, tmp_path / "short.nii")
    large = refused(page, tmp_path / "fine.nii")
    assert "512 x 512 x 384 voxels" in large and "resample the image to 1 mm" in large
    assert opened.errors == []


def test_more_scans_take_no_more_memory_and_a_run_can_be_cancelled(
    opened: Watched, site: Site
) -> None:
    page = opened.page
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    used = []
    for _ in range(3):
        segment(page, site.scan)
        all_ended(page)
        session.send("HeapProfiler.collectGarbage")
        figures = session.send("Performance.getMetrics")["metrics"]
        used.append(next(one["value"] for one in figures if one["name"] == "JSHeapUsedSize"))
    assert used[2] - used[1] < 2e6
    page.get_by_role("button", name="Segment").click()
    page.get_by_role("button", name="Cancel").click()
    assert page.locator("#problem").inner_text() == "Cancelled."
    all_ended(page)
    assert page.get_by_role("button", name="Segment").is_enabled()


def test_it_works_without_a_network_and_with_the_keyboard_alone(
    opened: Watched, site: Site, context: BrowserContext
) -> None:
    page = opened.page
    page.get_by_text("this page now works without a network").wait_for(timeout=300_000)
    context.set_offline(True)
    try:
        page.reload()
        page.get_by_label("Brain", exact=True).wait_for()
        page.set_input_files("#t1w", site.scan)
        page.locator("#t1w").focus()
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "run":
                break
        page.keyboard.press("Enter")
        page.locator("#viewer[data-shown]").wait_for(timeout=300_000)
        assert page.evaluate("document.activeElement.id") == "result"
    finally:
        context.set_offline(False)
    for scheme in ("light", "dark"):
        assert opened.violations(scheme=scheme) == []


def is_isolated(page: Page) -> bool:
    """Whether a page may have threads; not yet, while it is being loaded again."""
    try:
        return bool(page.evaluate("window.crossOriginIsolated"))
    except Error as error:
        if "navigation" not in str(error):
            raise
        return False


def test_a_plain_host_gets_threads_from_the_service_worker(browser: Browser, site: Site) -> None:
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    handler = partial(SimpleHTTPRequestHandler, directory=str(site.folder / "dist"))
    context = browser.new_context()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        until(page, lambda: is_isolated(page), 300)  # it reloads itself once
        server.shutdown()
    context.close()


def test_a_page_that_is_open_outlives_a_new_release(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    dist = tmp_path / "dist"
    shutil.copytree(site.folder / "dist", dist)
    context = browser.new_context()
    with script("serve").server_of(dist) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.get_by_text("this page now works without a network").wait_for(timeout=300_000)
        (worker,) = (dist / "assets").glob("worker-*.js")
        worker.unlink()  # in the next release it has another name
        index, list_of_files = dist / "index.html", dist / "sw.js"
        index.write_text(index.read_text().replace("<h1>", "<h1>New: "))
        text = list_of_files.read_text().replace(f'"assets/{worker.name}",', "")
        list_of_files.write_text(text.replace('"deepmrseg-', '"deepmrseg-new-'))
        page.reload()
        page.evaluate("""async () => {
            const known = await navigator.serviceWorker.ready;
            await known.update();
            while (known.installing) await new Promise((done) => setTimeout(done, 100)); }""")
        segment(page, site.scan)  # by the worker of its own release
        page.close()
        page = context.new_page()
        for _ in range(100):
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            if page.locator("h1").inner_text().startswith("New: "):
                break
            page.goto("about:blank")
            page.wait_for_timeout(200)
        assert page.locator("h1").inner_text().startswith("New: ")
        server.shutdown()
    context.close()


def test_the_files_of_the_page_have_endings_that_every_host_knows(site: Site) -> None:
    page = site.folder / "dist"
    names = {path.suffix for path in page.rglob("*") if path.is_file()} - {".nii"}
    assert names <= {".html", ".css", ".js", ".json", ".gz"}, names


def test_models_of_another_release_are_refused(browser: Browser, site: Site) -> None:
    context = browser.new_context(service_workers="block")
    page = context.new_page()
    real = (site.folder / "dist" / "models" / "models.json").read_text()
    other = real.replace('"version": "tiny"', '"version": "other"')
    page.route("**/models.json", lambda route: route.fulfill(body=other))
    page.goto(site.url)
    page.locator("#problem").wait_for()
    assert "do not belong to this page" in page.locator("#problem").inner_text()
    assert page.locator("#tasks input").count() == 0
    context.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"body": b"\x1f\x8b\x08" + bytes(40)}, "brain.model.gz is incomplete or damaged"),
        ({"body": b"<html>no such file</html>"}, "the checksum of /models/brain.model.gz differs"),
        ({"status": 503, "body": b""}, "the server answered with status 503. Check the connection"),
        (None, "brain.model.gz could not be loaded: no answer from the server. Check the"),
    ],
)
def test_models_that_do_not_arrive_are_told_as_such(
    browser: Browser, site: Site, answer: dict[str, object] | None, message: str
) -> None:
    context = browser.new_context(service_workers="block")
    page = context.new_page()
    context.route("**/brain.model.gz", lambda route: route.fulfill(**answer) if answer  # type: ignore[arg-type]
                  else route.abort())  # fmt: skip
    page.goto(site.url)
    page.get_by_label("Brain", exact=True).wait_for()
    assert message in refused(page, site.scan)
    context.close()


def test_a_page_that_cannot_start_says_what_it_requires(
    browser: Browser, site: Site, tmp_path: Path
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto((site.folder / "dist" / "index.html").as_uri())  # a double click
    page.get_by_text("The page has not started").wait_for(timeout=30_000)
    page.goto(site.url)
    page.get_by_label("Brain", exact=True).wait_for()
    assert page.locator("#unstarted").count() == 0
    context.close()
    dist = str(site.folder / "dist")
    for arguments, message in (([dist, "--port", site.url.split(":")[-1][:-1]], "another --port"),
                               ([str(tmp_path)], "build it first (make web)")):  # fmt: skip
        served = subprocess.run([sys.executable, str(WEB / "serve.py"), *arguments],
                                capture_output=True, text=True)  # fmt: skip
        assert served.returncode == 2 and message in served.stderr, served.stderr


def test_a_phone_is_told_what_it_cannot_do(browser: Browser, site: Site) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 800}, is_mobile=True, has_touch=True
    )
    page = context.new_page()
    page.goto(site.url)
    page.get_by_label("Brain", exact=True).wait_for()
    assert "too little memory" in page.locator("#device").inner_text()
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390  # only tables scroll sideways, within their own box
    context.close()


def test_the_types_and_the_stages_of_the_page_are_those_of_the_package() -> None:
    needs_packages()
    subprocess.run(["npx", "tsc", "--noEmit"], cwd=WEB, check=True)
    tests = subprocess.run(["npx", "vitest", "run"], cwd=WEB, capture_output=True, text=True)
    assert tests.returncode == 0, tests.stdout[-4000:]


def test_the_golden_answers_are_those_of_this_package() -> None:
    golden = script("golden")
    stored = json.loads(golden.FILE.read_text(encoding="utf-8"))
    assert_same(json.loads(json.dumps(golden.golden())), stored, "golden")


def assert_same(found: object, expected: object, place: str) -> None:
    """Equal JSON, numbers and packed arrays to rounding."""
    if isinstance(expected, dict) and "data" in expected and isinstance(expected["data"], str):
        assert isinstance(found, dict)
        one, other = (np.frombuffer(base64.b64decode(x["data"]), np.float32)
                      for x in (found, expected))  # fmt: skip
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4, err_msg=place)
    elif isinstance(expected, dict):
        assert isinstance(found, dict) and found.keys() == expected.keys(), place
        for key in expected:
            assert_same(found[key], expected[key], f"{place}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list) and len(found) == len(expected), place
        for n, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{place}[{n}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), place
    elif not place.endswith((".file", ".labels")):  # compressed by this version of zlib
        assert found == expected, place


def test_the_guard_of_the_page_knows_the_findings_of_the_package() -> None:
    written = "".join(path.read_text() for path in (WEB / "src" / "lib").glob("*.ts"))
    known = set(re.findall(r'finding\(\s*"([a-z0-9-]+)"', written))
    not_here = {  # --force-header, registration, sidecars
        "assumed-geometry", "flair-alone", "flair-misaligned", "flair-view", "sidecar-unreadable",
    }  # fmt: skip
    assert set(CODES) - known == not_here and known <= set(CODES)


def test_the_lock_file_names_no_host() -> None:
    lock = (WEB / "package-lock.json").read_text()
    assert '"resolved"' not in lock
