"""Write the presets of `wholebrain` from the list of its structures.

    python benchmarks/wholebrain_preset.py structures > deepmrseg_bids/train/presets/wholebrain.toml
    python benchmarks/wholebrain_preset.py sides      > deepmrseg_bids/train/presets/sides.toml
    python benchmarks/wholebrain_preset.py labels     > deepmrseg_bids/tasks/wholebrain_labels.tsv
    python benchmarks/wholebrain_preset.py regions    > deepmrseg_bids/tasks/wholebrain_regions.tsv

The structures are those of the Neuromorphometrics protocol that the MICCAI 2012 workshop scored:
134 labels, 63 of them on either side. One network learns each pair as one structure; which side
a voxel lies on is learnt by another.
"""

from __future__ import annotations

import colorsys
import sys
from collections.abc import Iterable

PAIRS = {  # name: (abbreviation, right, left)
    "Accumbens-Area": ("ACC", 23, 30), "Amygdala": ("AMY", 31, 32), "Caudate": ("CAU", 36, 37),
    "Cerebellum-Exterior": ("CBE", 38, 39), "Cerebellum-White-Matter": ("CBWM", 40, 41),
    "Cerebral-White-Matter": ("WM", 44, 45), "Hippocampus": ("HIP", 47, 48),
    "Inf-Lat-Vent": ("ILV", 49, 50), "Lateral-Ventricle": ("LV", 51, 52),
    "Pallidum": ("PAL", 55, 56), "Putamen": ("PUT", 57, 58), "Thalamus-Proper": ("THA", 59, 60),
    "Ventral-DC": ("VDC", 61, 62), "Basal-Forebrain": ("BF", 76, 75),
    "Anterior-Cingulate-Gyrus": ("ACgG", 100, 101), "Anterior-Insula": ("AIns", 102, 103),
    "Anterior-Orbital-Gyrus": ("AOrG", 104, 105), "Angular-Gyrus": ("AnG", 106, 107),
    "Calcarine-Cortex": ("Calc", 108, 109), "Central-Operculum": ("CO", 112, 113),
    "Cuneus": ("Cun", 114, 115), "Entorhinal-Area": ("Ent", 116, 117),
    "Frontal-Operculum": ("FO", 118, 119), "Frontal-Pole": ("FRP", 120, 121),
    "Fusiform-Gyrus": ("FuG", 122, 123), "Gyrus-Rectus": ("GRe", 124, 125),
    "Inferior-Occipital-Gyrus": ("IOG", 128, 129), "Inferior-Temporal-Gyrus": ("ITG", 132, 133),
    "Lingual-Gyrus": ("LiG", 134, 135), "Lateral-Orbital-Gyrus": ("LOrG", 136, 137),
    "Middle-Cingulate-Gyrus": ("MCgG", 138, 139), "Medial-Frontal-Cortex": ("MFC", 140, 141),
    "Middle-Frontal-Gyrus": ("MFG", 142, 143), "Middle-Occipital-Gyrus": ("MOG", 144, 145),
    "Medial-Orbital-Gyrus": ("MOrG", 146, 147),
    "Postcentral-Gyrus-Medial-Segment": ("MPoG", 148, 149),
    "Precentral-Gyrus-Medial-Segment": ("MPrG", 150, 151),
    "Superior-Frontal-Gyrus-Medial-Segment": ("MSFG", 152, 153),
    "Middle-Temporal-Gyrus": ("MTG", 154, 155), "Occipital-Pole": ("OCP", 156, 157),
    "Occipital-Fusiform-Gyrus": ("OFuG", 160, 161),
    "Opercular-Part-Of-Inferior-Frontal-Gyrus": ("OpIFG", 162, 163),
    "Orbital-Part-Of-Inferior-Frontal-Gyrus": ("OrIFG", 164, 165),
    "Posterior-Cingulate-Gyrus": ("PCgG", 166, 167), "Precuneus": ("PCu", 168, 169),
    "Parahippocampal-Gyrus": ("PHG", 170, 171), "Posterior-Insula": ("PIns", 172, 173),
    "Parietal-Operculum": ("PO", 174, 175), "Postcentral-Gyrus": ("PoG", 176, 177),
    "Posterior-Orbital-Gyrus": ("POrG", 178, 179), "Planum-Polare": ("PP", 180, 181),
    "Precentral-Gyrus": ("PrG", 182, 183), "Planum-Temporale": ("PT", 184, 185),
    "Subcallosal-Area": ("SCA", 186, 187), "Superior-Frontal-Gyrus": ("SFG", 190, 191),
    "Supplementary-Motor-Cortex": ("SMC", 192, 193), "Supramarginal-Gyrus": ("SMG", 194, 195),
    "Superior-Occipital-Gyrus": ("SOG", 196, 197),
    "Superior-Parietal-Lobule": ("SPL", 198, 199),
    "Superior-Temporal-Gyrus": ("STG", 200, 201), "Temporal-Pole": ("TMP", 202, 203),
    "Triangular-Part-Of-Inferior-Frontal-Gyrus": ("TrIFG", 204, 205),
    "Transverse-Temporal-Gyrus": ("TTG", 206, 207),
}  # fmt: skip
SINGLE = {
    "3rd-Ventricle": ("3V", 4), "4th-Ventricle": ("4V", 11), "Brain-Stem": ("BS", 35),
    "CSF": ("CSF", 46), "Optic-Chiasm": ("OC", 69),
    "Cerebellar-Vermal-Lobules-I-V": ("VER1", 71),
    "Cerebellar-Vermal-Lobules-VI-VII": ("VER6", 72),
    "Cerebellar-Vermal-Lobules-VIII-X": ("VER8", 73),
}  # fmt: skip
LOBES = {
    "Frontal": (
        "AOrG", "CO", "FO", "FRP", "GRe", "LOrG", "MFC", "MFG", "MOrG", "MPrG", "MSFG", "OpIFG",
        "OrIFG", "POrG", "PrG", "SCA", "SFG", "SMC", "TrIFG",
    ),
    "Temporal": ("FuG", "ITG", "MTG", "PP", "PT", "STG", "TMP", "TTG"),
    "Parietal": ("AnG", "MPoG", "PCu", "PO", "PoG", "SMG", "SPL"),
    "Occipital": ("Calc", "Cun", "IOG", "LiG", "MOG", "OCP", "OFuG", "SOG"),
    "Limbic": ("ACgG", "Ent", "MCgG", "PCgG", "PHG"),
    "Insular": ("AIns", "PIns"),
}  # fmt: skip
DEEP = ("ACC", "AMY", "BF", "CAU", "HIP", "PAL", "PUT", "THA", "VDC")
MUSE = {44: [44, 45, *range(81, 96)]}  # its lobes of white matter, fornix, capsules, callosum
IGNORED = {  # codes that the workshop did not score and a few maps hold
    "neuromorphometrics": [15, 42, 43, 63, 64, 65, 66, 74, 126, 127],
    "muse": [1],
}

HEAD = """\
# Structures of the whole brain from brain-extracted T1w at 1 mm, both sides as one; made by
# benchmarks/wholebrain_preset.py.
task = "wholebrain"
labels = ["""

REST = """]

[network]
kind = "deepmrseg"
spatial_dims = 3
in_channels = 4
classes = {classes}
width = 32
depth = 3
pre_blocks = 1
patch = 2

[preparation]
spacing = 1.0
intensity = "brain"
coordinates = true

[loop]
steps = 3200
crop = [96, 96, 96]
batch = 2
windows = false
learning_rate = 0.003
ema = 0.99
validate_every = 400
checkpoint_every = 40

[augment]
flip = 0.5
rotate_deg = 10
scale = 0.1
shear = 0.05
shift_mm = 40
elastic_mm = 1.5
bias = 0.6
shading = 0.6
gamma = 0.3
contrast = 0.1
brightness = 0.1
noise = 0.2
blur_mm = 1.0
thick_mm = 3
remap = 0.1
strip = 0.6"""

SIDES = """\
# The side that each voxel of a brain is in, from brain-extracted T1w at 2 mm; made by
# benchmarks/wholebrain_preset.py.
task = "sides"
labels = [
  {{ index = 1, name = "Right-Brain", abbreviation = "R", color = "#e4572e" }},
  {{ index = 2, name = "Left-Brain", abbreviation = "L", color = "#2e86ab" }},
]

[network]
kind = "deepmrseg"
spatial_dims = 3
in_channels = 2
classes = 3
width = 16
depth = 4
pre_blocks = 1
patch = 2

[preparation]
spacing = 2.0
intensity = "brain"
shape = [96, 112, 96]
position = true

[loop]
steps = 800
crop = [96, 112, 96]
batch = 2
learning_rate = 0.003
validate_every = 200

[augment]
flip = 0.5
rotate_deg = 20
scale = 0.15
shear = 0.05
shift_mm = 12
elastic_mm = 2.0
bias = 0.5
shading = 0.9
gamma = 0.4
noise = 0.4
blur_mm = 2.0
thick_mm = 5
remap = 0.3
invert = 0.1
strip = 0.6

[protocols.neuromorphometrics]
ignore = "rest"
1 = {right}
2 = {left}

[protocols.muse]
ignore = "rest"
1 = {muse_right}
2 = {muse_left}

[protocols.freesurfer]
ignore = "rest"
1 = [41, 42, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 58, 60]
2 = [2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 17, 18, 26, 28]"""
MUSE_LOBES = range(81, 95)  # white matter by lobe, fornix, capsules: right and left in turn


def sides() -> None:
    """The preset of the network that tells the sides apart."""
    right, left = (sorted(code[place] for code in PAIRS.values()) for place in (1, 2))
    print(
        SIDES.format(
            right=right,
            left=left,
            muse_right=sorted({*right, *MUSE_LOBES[::2]}),
            muse_left=sorted({*left, *MUSE_LOBES[1::2]}),
        )
    )


def structure_rows() -> list[tuple[str, str, list[int]]]:
    """Name, abbreviation and codes (right, left) of each structure, in the order of classes."""
    rows = [(name, short, [right, left]) for name, (short, right, left) in PAIRS.items()]
    rows += [(name, short, [code]) for name, (short, code) in SINGLE.items()]
    return sorted(rows, key=lambda row: row[2][0])


def color(place: int, lighter: float = 0.0) -> str:
    """Neighbours in the table differ most."""
    hue, light = place * 0.381966 % 1, 0.45 + 0.2 * (place % 2) + lighter
    red, green, blue = (round(255 * v) for v in colorsys.hls_to_rgb(hue, light, 0.65))
    return f"#{red:02x}{green:02x}{blue:02x}"


def labels() -> None:
    """The label table of the task: each side by itself, the left a little lighter."""
    print("index\tname\tabbreviation\tcolor")
    lines = []
    for place, (name, short, codes) in enumerate(structure_rows()):
        if len(codes) == 1:
            lines.append((codes[0], name, short, color(place)))
            continue
        for side, code, lighter in (("Right", codes[0], 0.0), ("Left", codes[1], 0.1)):
            lines.append((code, f"{side}-{name}", f"{side[0]}-{short}", color(place, lighter)))
    for line in sorted(lines):
        print(*line, sep="\t")


def regions() -> None:
    """Which structures each composite region is made of, and near which its white matter lies."""
    codes = {short: pair for short, *pair in PAIRS.values()}
    cortex = [short for lobe in LOBES.values() for short in lobe]
    vermis = [code for short, code in SINGLE.values() if short.startswith("VER")]

    def of(shorts: Iterable[str], side: int) -> list[int]:
        return [codes[short][side] for short in shorts]

    def both(*shorts: str) -> list[int]:
        return [code for side in (0, 1) for code in of(shorts, side)]

    grey = [*both(*cortex, *DEEP, "CBE"), *vermis]
    white = both("WM", "CBWM")
    rows: list[tuple[str, list[int], list[int]]] = [
        ("Brain-Tissue", [*grey, *white, 35, 69], []),
        ("Grey-Matter", grey, []),
        ("White-Matter", white, []),
        ("Cortex", both(*cortex), []),
        ("Deep-Grey-Matter", both(*DEEP), []),
        ("Cerebral-White-Matter", both("WM"), []),
        ("Ventricles", [*both("LV", "ILV"), 4, 11], []),
        ("Cerebellum", [*both("CBE", "CBWM"), *vermis], []),
        ("Brainstem", [35], []),
    ]
    for side, name in enumerate(("Right", "Left")):
        rows += [
            (f"{name}-Hemisphere", of((*cortex, *DEEP, "WM"), side), []),
            (f"{name}-Cortex", of(cortex, side), []),
            (f"{name}-Deep-Grey-Matter", of(DEEP, side), []),
            (f"{name}-Lateral-Ventricles", of(("LV", "ILV"), side), []),
            (f"{name}-Cerebellum", of(("CBE", "CBWM"), side), []),
        ]
        for lobe, shorts in LOBES.items():
            rows.append((f"{name}-{lobe}-Grey-Matter", of(shorts, side), []))
        for lobe, shorts in LOBES.items():
            rows.append((f"{name}-{lobe}-White-Matter", of(("WM",), side), of(shorts, side)))
    print("index\tname\tlabels\tnear")
    for index, (name, labels, near) in enumerate(rows, start=1):
        print(index, name, *(",".join(map(str, sorted(part))) or "n/a" for part in (labels, near)),
              sep="\t")  # fmt: skip


def structures() -> None:
    """The preset of the network that tells the structures apart."""
    rows = structure_rows()
    print(HEAD)
    for place, (name, short, codes) in enumerate(rows):
        print(
            f'  {{ index = {codes[0]}, name = "{name}", abbreviation = "{short}", '
            f'color = "{color(place)}" }},'
        )
    print(REST.format(classes=len(rows) + 1))
    for protocol in ("neuromorphometrics", "muse"):
        print(f"\n[protocols.{protocol}]")
        for number, (_, _, codes) in enumerate(rows, start=1):
            known = MUSE.get(codes[0], codes) if protocol == "muse" else codes
            print(f"{number} = {known}")
        print(f"ignore = {IGNORED[protocol]}")


if __name__ == "__main__":
    parts = {"structures": structures, "sides": sides, "labels": labels, "regions": regions}
    parts[sys.argv[1]]()
