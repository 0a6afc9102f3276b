"""A scan of 512^3 voxels: the memory that it takes is bounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.integration.conftest import add_scan, make_dataset
from tests.robustness.conftest import rows, started
from tests.tiny import tiny_head

Say = Callable[[str], None]


def large_head() -> nib.Nifti1Image:
    """The small head in voxels of 0.5 mm, in the middle of 512^3 of them."""
    small = tiny_head(1)
    inner = np.asarray(small.dataobj).astype(np.int16)
    for axis in range(3):
        inner = inner.repeat(8, axis)
    data = np.zeros((512, 512, 512), np.int16, order="F")
    start = [(512 - edge) // 2 for edge in inner.shape]
    data[tuple(slice(a, a + n) for a, n in zip(start, inner.shape, strict=True))] = inner
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] = -127.75  # its middle is that of the small one
    return nib.Nifti1Image(data, affine)


@pytest.mark.robustness(
    "0.5 mm voxels, 512^3",
    tried="a head of 512^3 voxels, `--mem 4G`, `ulimit -v` 4 GiB",
)
def test_a_head_of_half_a_millimetre_stays_within_four_gib(
    tiny_model: Path, tmp_path: Path, came_out: Say
) -> None:
    raw, out = make_dataset(tmp_path / "bids"), tmp_path / "out"
    scan = add_scan(raw, "sub-01_T1w", b"")
    scan.unlink()
    scan = scan.with_suffix("")
    nib.save(large_head(), scan)  # not compressed: only its size matters here
    limit = ("bash", "-c", f'ulimit -v {4 * 2**20}; exec "$@"', "limit")
    words = [raw, out, "participant", "--tasks", "brain", "--model", f"brain={tiny_model}"]
    try:
        with started(*words, "--probabilities", "--mem", "4G", prefix=limit) as run:
            code, output = run.ends()
    finally:
        scan.unlink()
    row = rows(out)["sub-01"]
    assert (code, row["status"]) == (0, "done"), output
    assert nib.load(out / "sub-01/anat/sub-01_desc-brain_mask.nii.gz").shape == (512, 512, 512)
    assert (out / "sub-01.html").stat().st_size > 0
    assert float(row["peak_mib"]) < 4096
    came_out(f"exit code {code}; done, with its page and posteriors")
