// How much of each label's probability lies where which label was chosen. From these few numbers
// follows the confidence of any label, and of any union of labels. Mirrors deepmrseg_bids/tasks/soft_counts.py.

/** Chosen labels beside probabilities, in voxels of the posteriors. */
export class SoftCounts {
  private readonly place: Map<number, number>;
  private readonly sizes: Float64Array;
  private readonly total: Float64Array;
  private readonly shared: Float64Array; // of the second label in the voxels of the first

  constructor(readonly indices: number[]) {
    this.place = new Map(indices.map((index, n) => [index, n]));
    this.sizes = new Float64Array(indices.length);
    this.total = new Float64Array(indices.length);
    this.shared = new Float64Array(indices.length ** 2);
  }

  /** A voxel for which a label was chosen. */
  choose(label: number): void {
    this.sizes[this.place.get(label) as number]++;
  }

  /** The probability of a label in a voxel for which another was chosen, or none (0). */
  add(chosen: number, label: number, share: number): void {
    const second = this.place.get(label) as number;
    this.total[second] += share;
    const first = this.place.get(chosen);
    if (first !== undefined) this.shared[first * this.indices.length + second] += share;
  }

  /** The Dice of a union of labels that the probabilities promise; null if none was chosen. */
  expectedDice(labels: number[]): number | null {
    const rows = labels.flatMap((label) => this.place.get(label) ?? []);
    const over = (values: Float64Array) => rows.reduce((all, row) => all + values[row], 0);
    const size = over(this.sizes);
    if (!size) return null;
    const inside = rows.reduce((all, first) => all + over(this.shared.subarray(first * this.indices.length)), 0);
    return (2 * inside) / (size + over(this.total));
  }

  /** The confidence of each label, by its index. */
  confidences(): Map<number, number | null> {
    return new Map(this.indices.map((index) => [index, this.expectedDice([index])]));
  }
}
