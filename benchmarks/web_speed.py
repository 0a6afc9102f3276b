"""Time and memory of the page in headless Chromium: ``web_speed.py SCAN [--task T ...]``.

Also prints the size of the page and the time to its first paint. ``make web`` first.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from web_page import WEB, opened, segment

_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--task", action="append", default=[])
    parser.add_argument("--flair", type=Path)
    parser.add_argument("--dist", type=Path, default=WEB / "dist")
    parser.add_argument("--picture", type=Path, help="save what the page looks like, as PNG")
    args = parser.parse_args()
    size = sum(path.stat().st_size for path in args.dist.rglob("*") if path.is_file())
    print(f"size of the page: {size / 1e6:.1f} MB")
    tasks = args.task or ["brain", "deepbrain", "hippocampus"]
    with opened(args.dist) as page, tempfile.TemporaryDirectory() as folder:
        while (paint := page.evaluate(_PAINT)) is None:
            page.wait_for_timeout(100)
        print(f"first paint: {paint / 1000:.2f} s")
        done = segment(page, args.scan, tasks, Path(folder), args.flair)
        print(done.summary)
        print(f"from the click to the table: {done.seconds:.1f} s")
        print(f"peak memory of the browser: {done.peak_mib:.0f} MiB (PSS of all its processes)")
        if args.picture:
            page.locator("#viewer[data-shown]").wait_for(timeout=120_000)
            page.screenshot(path=args.picture, full_page=True)


if __name__ == "__main__":
    main()
