// In the place of the codecs of Zarr, which this page does not read.

export default class NoCodec {
  static fromConfig(): never {
    throw new Error("Zarr is not supported");
  }
}
