"""Make a BIDS data set from the MNI152 T1w that ships inside nilearn.

    python benchmarks/make_demo.py FOLDER

It is an average of 152 people, not a scan of one: good to see that everything works, not to
judge accuracy by.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.resources import files
from pathlib import Path


def main() -> None:
    root = Path(sys.argv[1])
    anat = root / "sub-MNI152" / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    source = files("nilearn.datasets") / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    shutil.copyfile(str(source), anat / "sub-MNI152_T1w.nii.gz")
    description = {
        "Name": "MNI152 2009a, nonlinear, symmetric (from nilearn)",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
    }
    (root / "dataset_description.json").write_text(json.dumps(description, indent=2) + "\n")
    (root / "README").write_text("The MNI152 average, as a data set of one subject.\n")
    (root / "participants.tsv").write_text("participant_id\tgroup\nsub-MNI152\taverage\n")
    print(f"{root}: one subject")


if __name__ == "__main__":
    main()
