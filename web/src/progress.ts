// How much of the work is done, and how long the rest will take.

// seconds of one thread, as measured; only their ratios matter
const COST: Record<string, number> = { brain: 0.53, icv: 0.53, outline: 5, deepbrain: 0.85, hippocampus: 0.18, sides: 2, wholebrain: 20, "wholebrain-head": 0.5, wml: 0.6 };
const CALLS: Record<string, number> = { brain: 22, icv: 8, outline: 1, deepbrain: 12, hippocampus: 22, sides: 1, wholebrain: 1, "wholebrain-head": 22, wml: 15 };
const SOON = 0.05; // before that nothing is said of the time

interface Step {
  model: string;
  cost: number;
  done: number;
}

/** Counts the calls of networks against those that are expected; what lies before a call is done. */
export class Progress {
  private readonly steps: Step[] = [];
  private at = 0;
  private spent = 0; // of all calls, those beyond the expected ones too
  private readonly start = performance.now();

  /** The models in the order in which they work; that of the brain works again on a FLAIR, before the lesions. */
  constructor(models: string[], flair: boolean) {
    for (const model of models) {
      if (model === "wml" && flair) this.expect("brain");
      this.expect(model);
      if (model === "wholebrain") this.expect("wholebrain-head");
    }
  }

  private expect(model: string): void {
    this.steps.push({ model, cost: (COST[model] ?? 1) * (CALLS[model] ?? 10), done: 0 });
  }

  called(model: string): void {
    this.spent += COST[model] ?? 1;
    const found = this.steps.findIndex((step, n) => n >= this.at && step.model === model);
    if (found < 0) return; // a second look at the brain
    this.at = found;
    const step = this.steps[found];
    step.done = Math.min(step.done + (COST[model] ?? 1), step.cost);
  }

  get share(): number {
    return this.all ? this.done / this.all : 0;
  }

  /** Seconds that are left; null where that is not known yet. */
  get left(): number | null {
    if (this.share < SOON || !this.spent) return null;
    const perCost = (performance.now() - this.start) / 1000 / this.spent;
    return (this.all - this.done) * perCost;
  }

  private get all(): number {
    return this.steps.reduce((total, { cost }) => total + cost, 0);
  }

  private get done(): number {
    return this.steps.reduce((total, { cost, done }, n) => total + (n < this.at ? cost : done), 0);
  }
}

/** A time in words. */
export function duration(seconds: number): string {
  if (seconds < 10) return "a few seconds";
  if (seconds < 90) return `${Math.ceil(seconds / 10) * 10} seconds`;
  return `${Math.round(seconds / 60)} minutes`;
}
