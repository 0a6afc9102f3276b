// How much of the work is done, and how long the rest will take.

// seconds of one thread, as measured; only their ratios matter
const COST: Record<string, number> = { brain: 0.53, icv: 0.53, outline: 5, deepbrain: 0.85, hippocampus: 0.18, sides: 2, wholebrain: 20, "wholebrain-head": 0.5, wml: 0.6 };
const CALLS: Record<string, number> = { brain: 22, icv: 8, outline: 1, deepbrain: 12, hippocampus: 22, sides: 1, wholebrain: 1, "wholebrain-head": 22, wml: 15 };
const SOON = 0.05; // before that nothing is said of the time

/** Counts the calls of networks against those that are expected. */
export class Progress {
  private readonly expected = new Map<string, number>();
  private readonly done = new Map<string, number>();
  private readonly start = performance.now();

  constructor(models: string[], flair: boolean) {
    for (const model of models) this.expected.set(model, this.cost(model, flair && model === "brain" ? 2 : 1));
    if (models.includes("wholebrain")) this.expected.set("wholebrain-head", this.cost("wholebrain-head", 1));
  }

  private cost(model: string, times: number): number {
    return (COST[model] ?? 1) * (CALLS[model] ?? 10) * times;
  }

  called(model: string): void {
    this.done.set(model, (this.done.get(model) ?? 0) + (COST[model] ?? 1));
  }

  /** What a task needed is done, however many calls it took. */
  finished(models: string[], others: string[]): void {
    for (const model of models) if (!others.includes(model)) this.done.set(model, this.expected.get(model) ?? 0);
  }

  get share(): number {
    let all = 0;
    let done = 0;
    for (const [model, cost] of this.expected) {
      all += cost;
      done += Math.min(this.done.get(model) ?? 0, cost);
    }
    return all ? done / all : 0;
  }

  /** Seconds that are left; null where that is not known yet. */
  get left(): number | null {
    const { share } = this;
    return share < SOON ? null : (((performance.now() - this.start) / 1000) * (1 - share)) / share;
  }
}

/** A time in words. */
export function duration(seconds: number): string {
  if (seconds < 10) return "a few seconds";
  if (seconds < 90) return `${Math.ceil(seconds / 10) * 10} seconds`;
  return `${Math.round(seconds / 60)} minutes`;
}
