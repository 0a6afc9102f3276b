"""The models of the page: ``python web/build_models.py OUT [--bundles DIR]`` writes them.

Writes NAME.model.gz of each model and models.json, which says what they are. The page decompresses
them itself, so that any plain host will do. A file holds the bytes of an ONNX file at even places,
then those at odd ones: weights of two bytes become a tenth smaller so.

The models of the sides and of the outline have coarse weights in their large layers, so that the
page stays below 25 MB; all others have those of the package.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np

from deepmrseg_bids import __version__
from deepmrseg_bids.files import write_bytes, write_text
from deepmrseg_bids.inference.bundle import ModelBundle, shipped_bundles
from deepmrseg_bids.inference.onnx_export import (
    describe,
    export_onnx,
    largest_difference,
    model_bytes,
)
from deepmrseg_bids.tasks.regions import read_regions
from deepmrseg_bids.tasks.registry import find_task

SMALL = ("sides", "outline")
SPLIT = ("wholebrain",)
MOST_DIFFERENT = 0.02  # of posteriors on noise, coarse weights from those of the package


def main() -> None:
    """Write the models and their list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundles", type=Path, help="a folder with one bundle per model")
    args = parser.parse_args()
    build(args.out, args.bundles)


def build(out: Path, bundles: Path | None = None) -> None:
    """Write the models of a folder of bundles, or the shipped ones, and their list."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.model.gz"):  # all that lies here becomes part of the page
        old.unlink()
    folders = shipped_bundles()
    if bundles is not None:
        folders = {path.name: path for path in sorted(bundles.iterdir())}
    models = {}
    for name, folder in folders.items():
        bundle = ModelBundle.open(folder)
        files = [write(out, f"{name}{ending}", data) for ending, data in parts(bundle, out)]
        about = describe(bundle)
        if name in SPLIT:
            about |= tables_of(name)
        models[name] = {"files": files, "bundle": about}
    text = json.dumps({"version": __version__, "models": models}, ensure_ascii=False)
    write_text(out / "models.json", text)


def parts(bundle: ModelBundle, out: Path) -> list[tuple[str, bytes]]:
    """The ONNX files of a model, each with the ending of its name."""
    if bundle.task in SPLIT:
        return [
            (ending, model_bytes(bundle, weights="float16", part=part))
            for ending, part in (("", "features"), ("-head", "head"))
        ]
    if bundle.task in SMALL:
        return [("", coarse(bundle))]
    whole = out / "checked.onnx"
    export_onnx(bundle, whole, half=True)
    data = whole.read_bytes()
    whole.unlink()
    return [("", data)]


def coarse(bundle: ModelBundle) -> bytes:
    """The ONNX file with coarse weights, if it answers nearly as the bundle does."""
    model = model_bytes(bundle, weights="coarse")
    channels = bundle.network.in_channels - bundle.preparation.position
    noise = np.random.default_rng(0).normal(0, 1, (1, channels, 32, 32, 32)).astype(np.float32)
    difference = largest_difference(bundle, model, [noise])
    if not difference <= MOST_DIFFERENT:
        raise SystemExit(f"{bundle.path}: coarse weights change posteriors by {difference:.2g}")
    return model


def write(out: Path, name: str, model: bytes) -> dict[str, str]:
    """Write one file, compressed; its name, and the SHA-256 of the model in it."""
    write_bytes(out / f"{name}.model.gz", gzip.compress(model[::2] + model[1::2], 9, mtime=0))
    return {"name": f"{name}.model.gz", "sha256": hashlib.sha256(model).hexdigest()}


def tables_of(name: str) -> dict[str, object]:
    """The labels of a task that are not those of its model, and its composite regions."""
    task = find_task(name)
    tables = {"table": task.table, "regions": task.regions and read_regions(task.regions)}
    return {key: [dataclasses.asdict(row) for row in rows] for key, rows in tables.items() if rows}


if __name__ == "__main__":
    main()
