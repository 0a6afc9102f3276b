// What a file is, by its first bytes, and its content piece by piece: its name may say something else.
// Mirrors deepmrseg_bids/imaging/file_kinds.py.

import { ScanError } from "./findings";

export const PEEK = 1024; // bytes that tell what a file is

export const AGAIN = "copy or download it again";
const ARCHIVE = "unpack it first";
const LOST = (command: string) => `only the placeholder of the image is present; run \`git ${command}\``;
const PICTURE = "give the NIfTI image of the scan";
const UNCOMPRESS = "decompress it, or compress it with gzip";
const SLICER = "convert it to NIfTI, for example with 3D Slicer";
const ONE_FILE = "write both into one .nii file";
const PAIR = `half of an image in two files (.hdr and .img); ${ONE_FILE}`;
const HEADER = `the header of a NIfTI pair (.hdr and .img); ${ONE_FILE}`;

/** Place, mark, what it is and what to do. */
const MARKS: [number, string, string][] = [
  [0, "version https://git-lfs", `a Git LFS pointer file; ${LOST("lfs pull")}`],
  [128, "DICM", "a DICOM file; convert the series with dcm2niix"],
  [0, "\x1f\x8b", "compressed twice with gzip; run gunzip on it once"],
  [0, "PK\x03\x04", `a zip archive; ${ARCHIVE}`],
  [0, "7z\xbc\xaf", `a 7z archive; ${ARCHIVE}`],
  [257, "ustar", `a tar archive; ${ARCHIVE}`],
  [0, "BZh", `compressed with bzip2; ${UNCOMPRESS}`],
  [0, "\xfd7zXZ", `compressed with xz; ${UNCOMPRESS}`],
  [0, "\x28\xb5\x2f\xfd", `compressed with zstd; ${UNCOMPRESS}`],
  [0, "NRRD", `an NRRD image; ${SLICER}`],
  [0, "ObjectType", `a MetaImage header; ${SLICER}`],
  [0, "CDF\x01", "a MINC image; convert it with mnc2nii"],
  [0, "\x89HDF", "an HDF5 file (MINC?); convert it to NIfTI"],
  [0, "\x89PNG", `a PNG picture; ${PICTURE}`],
  [0, "\xff\xd8\xff", `a JPEG picture; ${PICTURE}`],
  [0, "%PDF", `a PDF document; ${PICTURE}`],
  [0, "\x93NUMPY", "a NumPy array; save it as NIfTI, with its affine"],
  [344, "ni1\0", HEADER],
  [4, "ni2\0", HEADER],
];

/** The content of a file, decompressed where it is compressed with gzip. */
export async function* pieces(file: Blob, name: string): AsyncGenerator<Uint8Array> {
  try {
    const gzip = latin(new Uint8Array(await file.slice(0, 2).arrayBuffer())) === "\x1f\x8b";
    const stream: ReadableStream<Uint8Array> = gzip ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream();
    const reader = stream.getReader();
    try {
      for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
    } finally {
      await reader.cancel().catch(() => undefined);
    }
  } catch (error) {
    if (error instanceof DOMException) throw new ScanError(`${name}: the file cannot be read: it is a folder, or was moved or changed after it was chosen; choose it again`);
    throw new ScanError(`${name}: the file is truncated or damaged (its gzip compression ends early, is invalid, or has several parts); ${AGAIN}, or compress it again with gzip`);
  }
}

/** The first bytes of what a file holds. */
export async function peek(file: Blob, name: string): Promise<Uint8Array> {
  const first = new Uint8Array(PEEK);
  let length = 0;
  for await (const piece of pieces(file, name)) {
    const part = piece.subarray(0, PEEK - length);
    first.set(part, length);
    length += part.length;
    if (length === PEEK) break;
  }
  return first.subarray(0, length);
}

/** What a file is that is no NIfTI image, and what to do. */
export function whatItIs(name: string, first: Uint8Array): string {
  const known = MARKS.find(([at, mark]) => latin(first.subarray(at, at + mark.length)) === mark);
  if (known) return known[2];
  if (/\.(hdr|img)$/i.test(name) || isAnalyze(first)) return PAIR;
  if (isMgh(first)) return "a FreeSurfer volume (MGH); convert it with mri_convert";
  if (first.every((byte) => byte === 0)) return `a file of zero bytes only; ${AGAIN}`;
  return kindOfText(first) ?? "another kind of file, or a damaged one";
}

function latin(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

/** What a file of text is; undefined if it is none. */
function kindOfText(first: Uint8Array): string | undefined {
  const text = latin(first).replace(/^[\xef\xbb\xbf \t\r\n]+/, "").toLowerCase();
  if (text.replaceAll("\\", "/").split("\n")[0].includes("/annex/objects/")) return `a git-annex pointer file; ${LOST("annex get")}`;
  if (["<!doctype html", "<html", "<head"].some((mark) => text.startsWith(mark))) return "an HTML page (of a failed download, or a login?); download the image again";
  if (text.startsWith("<?xml")) return `an XML file; ${AGAIN}`;
  if (/^[{[]/.test(text)) return `a JSON file; ${AGAIN}`;
  if (first.every((byte) => byte >= 32 || [9, 10, 12, 13].includes(byte))) return `a text file; ${AGAIN}`;
  return undefined;
}

/** Whether these are the first bytes of an Analyze 7.5 header. */
function isAnalyze(first: Uint8Array): boolean {
  if (first.length < 348 || first.subarray(344, 348).some((byte) => byte !== 0)) return false;
  const view = new DataView(first.buffer, first.byteOffset);
  return [true, false].some((little) => view.getInt32(0, little) === 348);
}

/** Whether a volume of FreeSurfer begins so: version 1, four edges, a known type. */
function isMgh(first: Uint8Array): boolean {
  if (first.length < 284) return false;
  const view = new DataView(first.buffer, first.byteOffset);
  const [version, ...rest] = Array.from({ length: 6 }, (_, n) => view.getInt32(4 * n));
  const edges = rest.slice(0, 4);
  return version === 1 && edges.every((edge) => edge > 0 && edge < 2 ** 15) && [0, 1, 3, 4, 10].includes(rest[4]);
}
