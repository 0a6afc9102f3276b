"""Where every millisecond of a head, or of the page of a subject, goes.

    python benchmarks/stages.py head [--threads 2] [--tasks brain ...] [--flame head.svg]
    python benchmarks/stages.py page [--flame page.svg]

The head is that of `benchmarks/speed.py`, weights loaded; the page is that of its three tasks.
Each millisecond of wall time is given to the function of this package that runs, with all that it
calls in other libraries; the table lists those that take most. `--flame` draws all stacks, with the
functions of the libraries: the wider a bar, the longer it took, and what it called stands above
it. Run it on an idle machine; compare shares, not seconds.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from types import FrameType

import nibabel as nib
from speed import TASKS, head

from deepmrseg_bids.system import prepare_process

_PACKAGE = "/deepmrseg_bids/"
_LEVEL, _WIDTH = 18, 1400  # of the drawing, in pixels
Stack = tuple[str, ...]


@contextmanager
def stacks() -> Iterator[Counter[Stack]]:
    """Seconds by stack, while the block runs.

    Python looks at signals between two calls into C, so a long call gets all its time at its end.
    """
    found: Counter[Stack] = Counter()
    last = time.perf_counter()

    def look(_: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.perf_counter()
        found[_stack(frame)] += now - last  # type: ignore[assignment]  # seconds, not counts
        last = now

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        yield found
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _stack(frame: FrameType | None) -> Stack:
    names: list[str] = []
    while frame is not None:
        names.append(_name(frame))
        frame = frame.f_back
    return tuple(reversed(names))


def _name(frame: FrameType) -> str:
    path, code = frame.f_code.co_filename, frame.f_code
    if _PACKAGE in path:
        return f"{path.rpartition(_PACKAGE)[2]}:{code.co_qualname}"
    parts = Path(path).parts
    return f"[{'/'.join(parts[-2:])}:{code.co_name}]"


def table(found: Mapping[Stack, float], rows: int) -> None:
    """The functions of the package that take most, with what they call elsewhere."""
    own: Counter[str] = Counter()
    for stack, seconds in found.items():
        inner = next((name for name in reversed(stack) if not name.startswith("[")), "other")
        own[inner] += seconds  # type: ignore[assignment]
    total = sum(found.values())
    print("| function | ms | share |\n| --- | --- | --- |")
    for name, seconds in own.most_common(rows):
        print(f"| `{name}` | {1000 * seconds:.0f} | {100 * seconds / total:.1f} % |")
    rest = total - sum(seconds for _, seconds in own.most_common(rows))
    print(f"| all others | {1000 * rest:.0f} | {100 * rest / total:.1f} % |")
    print(f"| whole | {1000 * total:.0f} | 100 % |")


def flame(found: Mapping[Stack, float], path: Path) -> None:
    """Draw the stacks: an SVG whose bars tell name and milliseconds under the pointer."""
    total, bars = sum(found.values()), []
    deepest = max(map(len, found), default=0)

    def draw(items: list[tuple[Stack, float]], depth: int, left: float) -> None:
        children: dict[str, list[tuple[Stack, float]]] = {}
        for stack, seconds in items:
            if len(stack) > depth:
                children.setdefault(stack[depth], []).append((stack, seconds))
        for name, part in sorted(children.items()):
            seconds = sum(one for _, one in part)
            width = _WIDTH * seconds / total
            if width >= 0.5:
                y = _LEVEL * (deepest - depth - 1)
                colour = "#e8a33d" if name.startswith("[") else "#d1603d"
                label = escape(name)[: int(width / 6.5)] if width > 30 else ""
                bars.append(
                    f'<g><title>{escape(name)}: {1000 * seconds:.0f} ms</title><rect x="{left:.1f}"'
                    f' y="{y}" width="{width:.1f}" height="{_LEVEL - 1}" fill="{colour}"/>'
                    f'<text x="{left + 2:.1f}" y="{y + 13}">{label}</text></g>'
                )
                draw(part, depth + 1, left)
            left += width

    draw(list(found.items()), 0, 0.0)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_LEVEL * deepest}" '
        f'font-family="monospace" font-size="11">{"".join(bars)}</svg>\n',
        encoding="utf-8",
    )


def head_work(folder: Path, threads: int, tasks: list[str]) -> Callable[[], object]:
    """Segment the head once; returns what does it again."""
    from deepmrseg_bids.imaging.nifti import read_volume, write_labels
    from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
    from deepmrseg_bids.tasks.pipeline import run
    from deepmrseg_bids.tasks.results import Segmentation

    set_threads(threads)
    pool, path = PredictorPool(), folder / "sub-01_T1w.nii.gz"
    nib.save(head(), path)

    def work() -> None:
        for task, result in run({"T1w": read_volume(path)}, tasks, pool):
            assert isinstance(result, Segmentation), result
            write_labels(folder / f"{task}.nii.gz", result.labels)

    work()
    return work


def page_work(folder: Path) -> Callable[[], object]:
    """Run the app on the head, and write its page once; returns what does it again."""
    from app_overhead import dataset, seconds

    from deepmrseg_bids.bids.tables import read_sessions
    from deepmrseg_bids.reports.subject.collect import subject_page
    from deepmrseg_bids.session.job import SessionOutcome, TaskOutcome

    dataset(folder / "raw", 1)
    out = folder / "out"
    seconds(folder / "raw", out, "--no-reports", "--tasks", *TASKS)
    rows = read_sessions(out / "logs" / "sessions.tsv")
    image = folder / "raw/sub-01/anat/sub-01_T1w.nii.gz"
    tasks = tuple(TaskOutcome(row.task, "done") for row in rows)
    outcome = SessionOutcome("01", None, {"T1w": str(image)}, tasks)

    def work() -> Path:
        return subject_page([outcome], out, command="deepmrseg-bids raw out participant")

    work()
    return work


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("head", "page"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--rows", type=int, default=25)
    parser.add_argument("--flame", type=Path)
    args = parser.parse_args()
    prepare_process()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = (
            head_work(folder, args.threads, args.tasks)
            if args.what == "head"
            else page_work(folder)
        )
        start = time.process_time()
        with stacks() as found:
            work()
        print(f"processor time: {time.process_time() - start:.2f} s\n")
    table(found, args.rows)
    if args.flame:
        flame(found, args.flame)


if __name__ == "__main__":
    main()
