// The scan with one label map in NiiVue.

import type { Label } from "./lib/index";

type Library = typeof import("@niivue/niivue");
type Niivue = InstanceType<Library["Niivue"]>;
type Image = InstanceType<Library["NVImage"]>;

export interface Overlay {
  scan: File;
  labels: Uint8Array<ArrayBuffer>;
  table: Label[];
}

const STEPS: Record<string, [number, number, number]> = {
  ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowDown: [0, -1, 0], ArrowUp: [0, 1, 0], PageDown: [0, 0, -1], PageUp: [0, 0, 1],
};

export class Viewer {
  private library: Library | null = null;
  private niivue: Niivue | null = null;
  private scan: File | null = null;
  private table: Label[] = [];
  private last: Promise<void> = Promise.resolve();

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly where: HTMLElement,
  ) {
    canvas.addEventListener("keydown", (event) => this.key(event), { capture: true });
  }

  /** Show a label map on its scan, after what is being shown already. */
  show(overlay: Overlay, opacity: number): Promise<void> {
    const shown = this.last.then(() => this.drawn(overlay, opacity));
    this.last = shown.catch(() => undefined);
    return shown;
  }

  private async drawn({ scan, labels, table }: Overlay, opacity: number): Promise<void> {
    const niivue = await this.opened();
    const { NVImage } = this.library as Library;
    if (this.scan !== scan) {
      for (const old of [...niivue.volumes]) niivue.removeVolume(old);
      this.scan = null;
      const image = await NVImage.loadFromFile({ file: scan, name: scan.name, colormap: "gray" });
      niivue.addVolume(image);
      this.scan = scan;
    }
    while (niivue.volumes.length > 1) niivue.removeVolume(niivue.volumes[1]);
    const map = await this.labelImage(labels, table);
    map.opacity = opacity;
    this.table = table;
    niivue.addVolume(map);
    niivue.createOnLocationChange();
  }

  setOpacity(opacity: number): void {
    if (this.niivue && this.niivue.volumes.length > 1) this.niivue.setOpacity(1, opacity);
  }

  setOutline(outline: boolean): void {
    this.niivue?.setAtlasOutline(outline ? 1 : 0);
  }

  /** What is seen, as a PNG. */
  picture(): Promise<Blob> {
    this.niivue?.drawScene(); // its pixels are there until the browser has shown them
    return new Promise((resolve, reject) => this.canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/png"));
  }

  private async opened(): Promise<Niivue> {
    if (this.niivue) return this.niivue;
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("the viewer requires WebGL 2, which this browser does not support");
    this.library = await import("@niivue/niivue");
    const niivue = new this.library.Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [1, 1, 1, 0.8],
      crosshairWidth: 1,
      crosshairWidthUnit: "mm", // of coarse voxels it would hide what it points to
      dragAndDropEnabled: false,
      fontColor: [1, 1, 1, 1],
      isCornerOrientationText: true, // beside the crosshair, which hides letters on the middle of an edge
      isNearestInterpolation: false,
      loadingText: "",
      logLevel: "error",
      show3Dcrosshair: true,
    });
    niivue.onLocationChange = (place: unknown) => this.locate(place as { mm: ArrayLike<number>; values: { value: number }[] });
    await niivue.attachToCanvas(this.canvas, false);
    this.niivue = niivue;
    return niivue;
  }

  private async labelImage(labels: Uint8Array<ArrayBuffer>, table: Label[]): Promise<Image> {
    const { NVImage } = this.library as Library;
    const map = await NVImage.loadFromFile({ file: new File([labels], "labels.nii.gz"), name: "labels.nii.gz" });
    const entries = [{ index: 0, name: "", color: "#000000" }, ...table];
    const part = (at: number) => entries.map(({ color }) => parseInt(color.slice(at, at + 2), 16));
    map.setColormapLabel({
      R: part(1),
      G: part(3),
      B: part(5),
      A: entries.map(({ index }) => (index ? 255 : 0)),
      I: entries.map(({ index }) => index),
      labels: entries.map(({ name }) => name),
    });
    return map;
  }

  private key(event: KeyboardEvent): void {
    const step = STEPS[event.key];
    if (!step || !this.niivue) return;
    event.preventDefault();
    event.stopPropagation();
    this.niivue.moveCrosshairInVox(...step);
  }

  private locate({ mm, values }: { mm: ArrayLike<number>; values: { value: number }[] }): void {
    const place = Array.from(mm).slice(0, 3).map((x) => String(Math.round(x) || 0)).join(", "); // no -0
    const label = this.table.find(({ index }) => index === Math.round(values[1]?.value ?? 0));
    this.where.textContent = `${place} mm${label ? `: ${label.name.replaceAll("-", " ")}` : ""}`;
  }
}
