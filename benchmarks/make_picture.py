"""Draw a label map over its scan, as in the report, and save it as PNG.

python benchmarks/make_picture.py T1W LABEL_MAP LABEL_TABLE TASK OUT.png
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import read_labels, read_volume
from deepmrseg_bids.reports.figures import contour_figure
from deepmrseg_bids.tasks.registry import find_task


def main() -> None:
    scan, labels, table, task, out = sys.argv[1:6]
    picture = contour_figure(
        read_volume(scan),
        read_labels(labels),
        LabelTable.read(table),
        style=find_task(task).figure,
    )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(picture)).convert("P", palette=Image.Palette.ADAPTIVE).save(out)


if __name__ == "__main__":
    main()
