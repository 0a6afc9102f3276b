"""NIfTI files with any numbers in their headers, byte by byte: what libraries would not write."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np

PLACES = {  # NIfTI-1: where a number stands, and its type
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "qfac": (76, "f"),
    "pixdim": (80, "3f"),
    "vox_offset": (108, "f"),
    "slope": (112, "f"),
    "intercept": (116, "f"),
    "units": (123, "B"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quaternion": (256, "3f"),
    "qoffset": (268, "3f"),
    "srow_x": (280, "4f"),
    "srow_y": (296, "4f"),
    "srow_z": (312, "4f"),
    "offset_x": (292, "f"),
    "offset_y": (308, "f"),
    "offset_z": (324, "f"),
}


@dataclass
class Header:
    """A scan as bytes, whose header can be given any numbers."""

    content: bytearray

    @classmethod
    def of(
        cls,
        data: np.ndarray,
        *,
        sform: np.ndarray | None,
        qform: np.ndarray | None,
        codes: tuple[int, int] = (1, 1),
        kind: type[nib.Nifti1Image] = nib.Nifti1Image,
    ) -> Header:
        image = kind(data, None, dtype=data.dtype)
        if sform is not None:
            edges = np.linalg.norm(sform[:3, :3], axis=0)
            image.header.set_zooms([*edges, *[1.0] * (data.ndim - 3)])
            image.header.set_sform(sform, codes[0])
        if qform is not None:
            image.header.set_qform(qform, codes[1])
        image.header.set_xyzt_units("mm")
        stream = BytesIO()
        image.to_file_map({"image": nib.FileHolder(fileobj=stream)})
        return cls(bytearray(stream.getvalue()))

    def put(self, name: str, *numbers: float) -> Header:
        """The same with other numbers in one place."""
        place, kind = PLACES[name]
        changed = bytearray(self.content)
        struct.pack_into(f"<{kind}", changed, place, *numbers)
        return Header(changed)

    def save(self, path: Path, *, packed: bool | None = None) -> Path:
        """Write it; compressed as its name says, if nothing else is asked for."""
        packed = path.suffix == ".gz" if packed is None else packed
        path.write_bytes(gzip.compress(bytes(self.content), 1) if packed else bytes(self.content))
        return path
