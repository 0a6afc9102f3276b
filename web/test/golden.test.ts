// Each stage against what the Python package answers (golden.py writes golden.json).

import { readFileSync } from "node:fs";
import { gunzipSync, inflateSync } from "node:zlib";
import { describe, expect, it, vi } from "vitest";
import { airFindings, findAir, withAirAtZero } from "../src/lib/air";
import { averageIn, KEPT } from "../src/lib/averaging";
import { brightnessGradient } from "../src/lib/brightness";
import type { Brain } from "../src/lib/brain";
import { confidence, interval, thresholdOf } from "../src/lib/bundle";
import type { Bundle, Preparation } from "../src/lib/bundle";
import { uprightAxes } from "../src/lib/deepbrain";
import { ScanError } from "../src/lib/findings";
import { axesOf, canonicalGrid, centredGrid, covered, Grid, overlap, resample } from "../src/lib/grid";
import { bestFit, Search, withCoronalBorder } from "../src/lib/hippocampus";
import { brainCoordinates, normalise } from "../src/lib/intensity";
import type { Matrix, Vec3 } from "../src/lib/linear";
import * as ndimage from "../src/lib/ndimage";
import { niftiBytes, readVolume } from "../src/lib/nifti";
import type { Volume } from "../src/lib/nifti";
import { findOutline } from "../src/lib/outline";
import { windowPlaces } from "../src/lib/predictor";
import type { Network } from "../src/lib/predictor";
import { checkBrain, checkImage } from "../src/lib/qc";
import { Progress } from "../src/progress";
import { regionVolumes } from "../src/lib/regions";
import { classes, confidences, labelMap, largestParts, segmentation } from "../src/lib/results";
import type { Posteriors } from "../src/lib/results";
import { SoftCounts } from "../src/lib/soft_counts";
import { morphTsv } from "../src/lib/tables";
import { lesionsIn, sliceGrid } from "../src/lib/wml";

interface Packed {
  shape: number[];
  data: string;
}
interface Stored {
  shape: Vec3;
  affine: Matrix;
}

const golden = JSON.parse(readFileSync(new URL("golden.json", import.meta.url), "utf8"));

type Case = Record<string, any>;

function cases(name: string): Case[] {
  return golden[name];
}

function values({ data }: Packed): Float32Array<ArrayBuffer> {
  const bytes = Uint8Array.from(Buffer.from(data, "base64"));
  return new Float32Array(bytes.buffer);
}

function mask(one: Packed): Uint8Array {
  return Uint8Array.from(values(one));
}

function gridOf({ shape, affine }: Stored): Grid {
  return new Grid(shape, affine);
}

function close(found: ArrayLike<number>, expected: ArrayLike<number>, most = 1e-4): void {
  expect(found.length).toBe(expected.length);
  let worst = 0;
  for (let n = 0; n < found.length; n++) worst = Math.max(worst, Math.abs(found[n] - expected[n]));
  expect(worst).toBeLessThanOrEqual(most);
}

function closeGrid(found: Grid, expected: Stored): void {
  expect(found.shape).toEqual(expected.shape);
  close(found.affine.flat(), expected.affine.flat(), 1e-6);
}

describe("grids", () => {
  it.each(cases("geometry"))("lie where they lie in Python ($orientation)", (one: Case) => {
    const grid = gridOf(one.grid);
    const axes = axesOf(grid);
    close(axes.flat(), one.axes.flat(), 1e-8);
    expect(grid.orientation).toBe(one.orientation);
    expect(grid.obliquity).toBeCloseTo(one.obliquity, 6);
    expect(grid.voxelVolume).toBeCloseTo(one.volume, 8);
    closeGrid(canonicalGrid(grid, 1.3, axes), one.canonical);
    closeGrid(centredGrid([1, 2, 3], [4, 5, 6], 1.1, axes), one.centred);
  });

  it.each(cases("resampling"))("hand arrays on as in Python", (one: Case) => {
    const [source, target] = [gridOf(one.source), gridOf(one.target)];
    close(resample(values(one.data), source, target, one.fill), values(one.out));
    close(covered(source, target), values(one.covered), 0);
    const part = overlap(source, target);
    expect(part && [part.start, part.stop]).toEqual(one.overlap);
  });

  it.each(cases("slices"))("follow the slices of a FLAIR", (one: Case) => {
    const grid = gridOf(one.grid);
    const inside = new Uint8Array(grid.size);
    for (let i = one.first[0]; i < one.stop[0]; i++)
      for (let j = one.first[1]; j < one.stop[1]; j++)
        for (let k = one.first[2]; k < one.stop[2]; k++) inside[(i * grid.shape[1] + j) * grid.shape[2] + k] = 1;
    closeGrid(sliceGrid(grid, inside, 1), one.slices);
  });
});

describe("neighbours", () => {
  const one = golden.neighbours;
  const shape = one.data.shape as Vec3;
  const [m, data] = [mask(one.mask), values(one.data)];
  it.each([
    ["label", () => ndimage.label(m, shape).labels],
    ["label26", () => ndimage.label(m, shape, true).labels],
    ["dilated", () => ndimage.dilate(m, shape, 2)],
    ["eroded", () => ndimage.erode(m, shape)],
    ["opened", () => ndimage.opening(m, shape)],
    ["closed", () => ndimage.closedByBox(m, shape, [1, 2, 1])],
    ["filled", () => ndimage.fillHoles(m, shape)],
    ["distance", () => ndimage.distance(m, shape, { sampling: [1, 2, 1.5] })],
    ["gaussian", () => ndimage.gaussianFilter(data, shape, 1.1)],
    ["nearest", () => ndimage.gaussianFilter(data, shape, [0.8, 0, 1.4], "nearest")],
    ["gradient", () => ndimage.gaussianGradientMagnitude(data, shape, 1)],
    ["laplace", () => ndimage.laplace(data, shape)],
  ] as [string, () => ArrayLike<number>][])("%s as SciPy", (name, make) => {
    close(make(), values(one[name]));
  });
  it("percentiles as NumPy", () => close(ndimage.percentiles(data, [0.5, 50, 99.5]), one.percentiles, 1e-5));
});

describe("intensities", () => {
  const one = golden.intensities;
  const [data, m] = [values(one.data), mask(one.mask)];
  it("are scaled by a head, a brain, a crop", () => {
    close(normalise(data, "head", m), values(one.head));
    close(normalise(data, "brain", m), values(one.brain));
    close(normalise(data, "crop", m.slice().fill(1)), values(one.crop));
  });
  it("come with coordinates", () => close(brainCoordinates([4, 5, 3], [1.5, 2.2, 0.7], 1.5), values(one.coordinates)));
});

describe("air", () => {
  it.each(cases("paddings"))("is found at $level, negated: $negated", (one: Case) => {
    const data = values(one.data);
    const found = findAir(data, one.data.shape);
    expect(found.level).toBeCloseTo(one.level, 3);
    expect(found.negated).toBe(one.negated);
    close(found.outside, one.outside);
    close(withAirAtZero(data, one.data.shape, found), values(one.out), 1e-3);
    expect(airFindings(found, data, one.data.shape).map(({ code }) => code)).toEqual(one.codes);
  });
});

const pictures: Record<string, (tissue: number, noise: number, x: number, brain: boolean) => number> = {
  plain: (tissue, noise) => tissue + 8 * noise,
  uneven: (tissue, noise, x) => (tissue + 8 * noise) * Math.exp(x / 30),
  "dark core": (tissue, noise, _, brain) => (brain ? 200 - tissue : tissue) + 8 * noise,
  noisy: (tissue, noise) => tissue + 90 * noise,
  stripped: (tissue, noise, _, brain) => (brain ? tissue + 8 * noise : 0),
};

describe("brains", () => {
  it.each(cases("brains"))("$name: brightness and findings", (one: Case) => {
    const grid = gridOf(one.grid);
    const image = new Float32Array(grid.size);
    const inside = new Uint8Array(grid.size);
    for (let i = 0, n = 0; i < 60; i++)
      for (let j = 0; j < 70; j++)
        for (let k = 0; k < 60; k++, n++) {
          const [x, y, z] = [i - 30, j - 35, k - 30];
          const depth = 1 - Math.sqrt((x / 22) ** 2 + (y / 28) ** 2 + (z / 21) ** 2);
          const wave = Math.sin(i * 12.9898 + j * 78.233 + k * 37.719) * 437.585453;
          const noise = wave - Math.floor(wave) - 0.5;
          const tissue = depth > 0.45 ? 140 : depth > 0.12 ? 100 : depth > 0 ? 60 : 8;
          inside[n] = +(depth > 0);
          image[n] = pictures[one.name](tissue, noise, x, depth > 0);
        }
    expect(brightnessGradient(image, inside, grid)?.ratio).toBeCloseTo(one.ratio, 3);
    const findings = checkBrain(inside, image, grid, grid, 0.87);
    expect(findings.map(({ code, severity, message }) => [code, severity, message])).toEqual(one.findings);
  });
});

describe("posteriors", () => {
  const one = golden.answers;
  const grid = gridOf(one.grid);
  const all = values(one.data);
  const posteriors: Posteriors = { data: [0, 1, 2].map((c) => all.slice(c * grid.size, (c + 1) * grid.size)), grid, indices: [0, 7, 9] };
  const joined = ({ data }: Posteriors) => data.flatMap((part) => Array.from(part));
  it("lose scattered pieces", () => close(joined(largestParts(posteriors)), values(one.parts)));
  it("become labels on the grid of the scan", () => close(labelMap(largestParts(posteriors), gridOf(one.target)), values(one.labels), 0));
  it("get a coronal border", () => close(joined(withCoronalBorder(posteriors)), values(one.bordered)));
  it("say how sure they are", () => {
    for (const [index, sure] of one.confidences) expect(confidences(posteriors).get(index)).toBeCloseTo(sure, 5);
  });
  it("say how sure they are of unions of labels", () => {
    const sure = new SoftCounts([7, 9]);
    classes(posteriors).forEach((c, n) => {
      const chosen = posteriors.indices[c];
      if (chosen) sure.choose(chosen);
      [1, 2].forEach((other) => sure.add(chosen, posteriors.indices[other], posteriors.data[other][n]));
    });
    for (const [labels, dice] of one.unions) expect(sure.expectedDice(labels)).toBeCloseTo(dice, 5);
    expect(sure.expectedDice([8])).toBeNull();
  });
  it("tell how far an outline is to be moved", () => expect(bestFit(values(one.outline), values(one.found), one.shape)).toEqual(one.fit));
});

describe("volumes", () => {
  it.each(cases("calibrations"))("$name: interval and confidence of $volume", (one: Case) => {
    const [low, high] = interval(one.facts, one.name, one.volume);
    if (one.interval[0] === null) expect([low, high]).toEqual([null, null]);
    else close([low, high] as number[], one.interval, 1e-6);
    expect(confidence(one.facts, one.name, 0.83, one.volume)).toBeCloseTo(one.confidence, 8);
    expect(thresholdOf(one.facts, one.name, one.volume)).toBeCloseTo(one.threshold, 8);
  });
  it("are written as the app writes them", () => {
    const result = { ...segmentation("toy", new Uint8Array(8), [], golden.tables.measures), ...golden.tables };
    expect(morphTsv(result)).toBe(golden.tables.tsv);
  });
});

describe("windows", () => {
  it.each(cases("windows"))("of $window on an edge of $edge", (one: Case) => expect(windowPlaces(one.edge, one.window)).toEqual(one.starts));
});

describe("a search for the hippocampus", () => {
  it.each(cases("searches"))("$side, in windows of $window", async (one: Case) => {
    const grid = gridOf(one.grid);
    const data = new Float32Array(grid.size);
    const seen = new Uint8Array(grid.size);
    const ball = (x: number, y: number, z: number) => (x / 4) ** 2 + (y / 6) ** 2 + (z / 4) ** 2 < 1;
    for (let i = 0, n = 0; i < grid.shape[0]; i++)
      for (let j = 0; j < grid.shape[1]; j++)
        for (let k = 0; k < grid.shape[2]; k++, n++) {
          data[n] = 50 + 5 * Math.sin(i * 1.3 + j * 2.1 + k * 0.7) + (ball(i - 24, j - 22, k - 20) ? 60 : 0);
          seen[n] = +ball(i - 21, j - 24, k - 22);
        }
    const bright = async (image: Float32Array, [, , , edge, r]: number[]) => {
      const out = new Float32Array(3 * image.length);
      image.forEach((x, n) => {
        const share = 1 / (1 + Math.exp(-4 * (x - 1)));
        out[n] = 1 - share;
        out[n + image.length * (Math.floor(n / r) % edge >= edge / 2 ? 1 : 2)] = share;
      });
      return out;
    };
    const preparation = { spacing: 1, intensity: "crop", shape: [20, 24, 20], margin: 3, position: false, coordinates: false, window: one.window } as Preparation;
    const bundle = { preparation, network: { classes: 3 } } as Bundle;
    const volume = { data, grid, findings: [], name: "scan" } as unknown as Volume;
    const search = new Search(volume, seen, grid, one.side, preparation);
    await search.run({ bundle, network: bright, head: async () => bright });
    expect(search.foundAt).toEqual(one.place);
    expect(search.converged).toBe(one.converged);
    expect(search.best.mass / one.mass).toBeCloseTo(1, 4);
    closeGrid(search.best.found.grid, one.found);
  });
});

/** In the place of a network: what is brighter than a level belongs to the only structure. */
function brighter(level: number): Network {
  return async (image, [count, channels, ...edges]) => {
    const size = edges.reduce((a, b) => a * b);
    const out = new Float32Array(2 * count * size);
    for (let s = 0; s < count; s++)
      for (let n = 0; n < size; n++) {
        const from = s * channels * size + n;
        const seen = channels === 2 ? image[from] + 0.25 * image[from + size] : image[from];
        const share = 1 / (1 + Math.exp(-4 * (seen - level)));
        out[2 * s * size + n] = 1 - share;
        out[(2 * s + 1) * size + n] = share;
      }
    return out;
  };
}

function predictorOf(level: number, preparation: Partial<Preparation>, name: string, facts = {}) {
  const labels = [{ index: 1, name, abbreviation: "", color: "#ffffff" }];
  const rest = { shape: [16, 16, 16], margin: 0, position: false, coordinates: false, window: [0, 0, 0], ...preparation };
  const bundle = { preparation: rest, labels, facts, network: { classes: 2 } } as unknown as Bundle;
  return { bundle, network: brighter(level), head: async () => brighter(level) };
}

function volumeOf(grid: Grid, value: (i: number, j: number, k: number) => number): Volume {
  const data = new Float32Array(grid.size);
  for (let i = 0, n = 0; i < grid.shape[0]; i++)
    for (let j = 0; j < grid.shape[1]; j++) for (let k = 0; k < grid.shape[2]; k++, n++) data[n] = value(i, j, k);
  return { data, grid, findings: [], name: "scan" } as unknown as Volume;
}

const wave = (i: number, j: number, k: number) => Math.sin(i * 1.3 + j * 2.1 + k * 0.7);

describe("the outline of a brain", () => {
  it.each(cases("outlines"))("whose mask has a radius of $radius mm", async (one: Case) => {
    const [grid, coarse] = [gridOf(one.grid), gridOf(one.coarse)];
    const volume = volumeOf(grid, (i, j, k) => {
      if (i >= 14 && i < 16 && j >= 16 && j < 18 && k === 24) return 130;
      if ((i - 15) ** 2 + (j - 16) ** 2 + (k - 14) ** 2 < 4) return 10;
      return (Math.hypot((i - 15) * 1.3, (j - 16) * 1.2, (k - 14) * 1.3) < 11 ? 100 : 20) + 5 * wave(i, j, k);
    });
    const { data: probability } = volumeOf(coarse, (...at) => {
      const far = Math.hypot(...coarse.toWorld(at).map((x, axis) => x - one.middle[axis]));
      return 1 / (1 + Math.exp(far - one.radius));
    });
    const brain = { probability, grid: coarse, given: null } as unknown as Brain;
    const found = await findOutline(volume, brain, predictorOf(0.6, { spacing: 2, intensity: "brain" }, "Brain"));
    if (one.found === null) return expect(found).toBeNull();
    closeGrid(found!.grid, one.found.grid);
    close(found!.probability, values(one.found.probability));
    expect(found!.confidence).toBeCloseTo(one.found.confidence, 5);
  });
});

describe("lesions", () => {
  it.each(cases("lesions"))("by a threshold that their load decides: $name", async (one: Case) => {
    const grid = gridOf(one.grid);
    const inside = (i: number, j: number, k: number) => ((i - 17) / 15) ** 2 + ((j - 18) / 16) ** 2 + ((k - 6) / 5) ** 2 < 1;
    const t1w = volumeOf(grid, (...at) => (inside(...at) ? 100 - 6 * wave(...at) : 0));
    const flair = volumeOf(grid, (i, j, k) => {
      if (!inside(i, j, k)) return 0;
      const away = (x: number, y: number, z: number) => (i - x) ** 2 + (j - y) ** 2 + (3 * (k - z)) ** 2;
      const bright = one.spots.map(([x, y, z, radius]: number[]) => 80 * Math.exp(-away(x, y, z) / (2 * radius ** 2)));
      return 60 + 6 * wave(i, j, k) + bright.reduce((a: number, b: number) => a + b);
    });
    const brain = Float32Array.from(flair.data, (x) => +(x > 0));
    const maskOn = (target: Grid) => Uint8Array.from(resample(brain, grid, target), (share) => +(share > 0.5));
    const predictor = predictorOf(1.2, { spacing: 1, intensity: "brain" }, "White-Matter-Lesions", one.facts);
    const { labels, measures, lesionCount } = await lesionsIn(flair, t1w, maskOn, predictor);
    expect(Array.from(labels.keys()).filter((n) => labels[n])).toEqual(one.voxels);
    expect(lesionCount).toBe(one.count);
    expect(measures[0].volume).toBeCloseTo(one.volume, 6);
    expect(measures[0].confidence).toBeCloseTo(one.confidence, 4);
  });
});

describe("the mean of two networks", () => {
  it.each(cases("averages").map((one, n): [number, Case] => [n, one]))("case %i is that of the package", (_, one) => {
    const grid = gridOf(one.grid);
    const found = { grid, classes: new Uint8Array(grid.size * KEPT), shares: new Uint16Array(grid.size * KEPT) };
    const before = values(one.before);
    for (let n = 0; n < grid.size; n++) {
      const order = [0, 1, 2, 3].sort((a, b) => before[b * grid.size + n] - before[a * grid.size + n] || a - b);
      found.classes.set(order, n * KEPT);
      found.shares.set(order.map((c) => before[c * grid.size + n]), n * KEPT);
    }
    const other = gridOf(one.other);
    const seen = values(one.seen);
    const data = [0, 1, 2, 3].map((c) => seen.subarray(c * other.size, (c + 1) * other.size));
    averageIn(found, { data, grid: other, indices: [0, 1, 2, 3] }, new Map([[1, 1], [2, 1], [3, 2]]));
    const after = new Float32Array(before.length);
    found.shares.forEach((share, t) => {
      if (share) after[found.classes[t] * grid.size + Math.floor(t / KEPT)] = share;
    });
    close(after, values(one.after), 3);
    expect(found.shares.every((share, t) => t % KEPT === 0 || share <= found.shares[t - 1])).toBe(true);
  });
});

describe("composite regions", () => {
  it("are sums of labels, and the part of one that lies near others", () => {
    const { grid: stored, labels, regions, volumes } = golden.regions;
    close(regionVolumes(Uint8Array.from(labels), gridOf(stored), regions), volumes, 1e-3);
  });
});

describe("a tilted head", () => {
  it("has the axes that its structures tell", () => {
    const { grid: stored, voxels, classes, names, axes } = golden.poses;
    const grid = gridOf(stored);
    const data = [0, ...names].map(() => new Float32Array(grid.size));
    data[0].fill(0.5);
    voxels.forEach(([i, j, k]: Vec3, n: number) => (data[classes[n]][(i * grid.shape[1] + j) * grid.shape[2] + k] = 1));
    const table = names.map((name: string, n: number) => ({ index: n + 1, name, abbreviation: "", color: "#ffffff" }));
    const found = uprightAxes({ data, grid, indices: [0, ...table.map((label: { index: number }) => label.index)] }, table);
    close((found as Matrix).flat(), axes.flat(), 2e-6);
  });
});

describe("files", () => {
  it.each(cases("files"))("are read, and label maps written, as by the package", async (one: Case) => {
    const volume = await readVolume(new Blob([Buffer.from(one.file, "base64")]), "scan");
    close(volume.data, values(one.data), 0);
    closeGrid(volume.grid, one.grid);
    expect([...volume.findings, ...checkImage(volume)].map(({ code }) => code)).toEqual(one.codes);
    const labels = Uint8Array.from(volume.data, (x) => x % 5);
    const stream = new Blob([Buffer.from(one.labels, "base64")]).stream().pipeThrough(new DecompressionStream("gzip"));
    const expected = new Uint8Array(await new Response(stream).arrayBuffer());
    const found = niftiBytes(labels, volume.grid, volume.forms);
    const numbers = (bytes: Uint8Array) => {
      const view = new DataView(bytes.buffer);
      return Array.from({ length: 88 }, (_, n) => (n >= 19 && n <= 29) || n >= 64 && n <= 81 ? view.getFloat32(4 * n, true) : view.getInt32(4 * n, true));
    };
    close(numbers(found), numbers(expected), 1e-5);
    expect(Buffer.from(found.subarray(352)).equals(Buffer.from(expected.subarray(352)))).toBe(true);
  });

  it.each(cases("odd_files"))("that are odd or broken are told as by the package ($name)", async (one: Case) => {
    const reading = readVolume(new Blob([inflateSync(Buffer.from(one.file, "base64"))]), "scan");
    if (one.refused) {
      const error = await reading.catch((raised: unknown) => raised);
      expect(error).toBeInstanceOf(ScanError);
      expect((error as ScanError).message.replace("; extract one volume first", "")).toBe(one.refused);
      return;
    }
    const volume = await reading;
    expect(volume.findings.map(({ code, severity, message }) => [code, severity, message])).toEqual(one.findings);
    closeGrid(volume.grid, one.grid);
    const mean = volume.data.reduce((a, b) => a + b, 0) / volume.data.length;
    expect(Math.abs(mean - one.mean)).toBeLessThanOrEqual(1e-4 * Math.abs(one.mean));
  });

  const whole = Buffer.from(golden.files[0].file, "base64");
  const broken = Buffer.from(whole);
  broken[broken.length - 5] ^= 255; // of its checksum
  const typed = (kind: number) => {
    const content = gunzipSync(whole);
    content.writeInt16LE(kind, 70);
    return content;
  };
  it.each([
    ["nothing", Buffer.of(), /the file is empty; copy or download it again/],
    ["half a gzip", whole.subarray(0, 300), /truncated or damaged/],
    ["a gzip that lacks its last bytes", whole.subarray(0, whole.length - 6), /truncated or damaged/],
    ["another checksum", broken, /truncated or damaged/],
    ["colour", typed(128), /a colour or complex image/],
    ["quadruple precision", typed(1536), /data type 1536 is not supported\); convert it to float32/],
  ] as [string, Buffer<ArrayBuffer>, RegExp][])("%s: refused with what it is", async (_, bytes, message) => {
    await expect(readVolume(new Blob([bytes]), "scan")).rejects.toThrow(message);
    await expect(readVolume(new Blob([bytes]), "scan")).rejects.toBeInstanceOf(ScanError);
  });

  it("of many gigabytes are refused by their first bytes", async () => {
    const header = inflateSync(Buffer.from(golden.odd_files[0].file, "base64"));
    header.writeInt16LE(4, 40);
    header.writeInt16LE(3000, 48);
    let taken = 0;
    const endless = new ReadableStream({ pull: (out) => (taken++ ? out.enqueue(new Uint8Array(65536)) : out.enqueue(new Uint8Array(header))) });
    const file = { size: 1e12, slice: () => new Blob([header]), stream: () => endless } as unknown as Blob;
    await expect(readVolume(file, "scan")).rejects.toThrow("found 10 x 9 x 8 x 3000; extract one volume first");
    expect(taken).toBeLessThan(9);
  });

  it("that are gone when they are read are told as such", async () => {
    const gone = async () => Promise.reject(new DOMException("gone", "NotReadableError"));
    const file = { size: 1000, slice: () => ({ arrayBuffer: gone }) } as unknown as Blob;
    await expect(readVolume(file, "scan")).rejects.toThrow(/cannot be read: it is a folder, or was moved or changed/);
  });
});

describe("the time left", () => {
  it("does not grow where a network is called more often than expected", () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    try {
      const progress = new Progress(["brain", "wml"], true);
      const call = (model: string, count: number) => {
        for (let n = 0; n < count; n++) {
          vi.advanceTimersByTime(1000);
          progress.called(model);
        }
        return [progress.share, progress.left as number];
      };
      const [share, left] = call("brain", 22);
      const [later, more] = call("brain", 100);
      expect(later).toBeGreaterThanOrEqual(share);
      expect(more).toBeLessThanOrEqual(left);
      const [end, none] = call("wml", 15);
      expect(end).toBe(1);
      expect(none).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });
});
