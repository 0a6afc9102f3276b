// Several tasks on one scan, and what they share. Mirrors deepmrseg_bids/tasks/pipeline.py.

import { checkOrientation, brainVolume, findBrain, findInside, icvVolume, mayBeTurned, segmentBrain } from "./brain";
import type { Brain } from "./brain";
import { evened } from "./brightness";
import { segmentDeepbrain } from "./deepbrain";
import { ScanError } from "./findings";
import type { Finding } from "./findings";
import { segmentHippocampus } from "./hippocampus";
import type { Volume } from "./nifti";
import type { Predictors } from "./predictor";
import { findOutline, isFine } from "./outline";
import { checkImage } from "./qc";
import type { Segmentation } from "./results";
import { segmentWholebrain } from "./wholebrain";
import { segmentLesions } from "./wml";

/** What a task is called, and which models work for it. */
export interface Task {
  name: string;
  title: string;
  models: string[];
  needsFlair: boolean;
  segment: (session: Session) => Promise<Segmentation>;
}

export type Stage = (text: string) => void;

const DOUBTFUL = ["structure-missing", "structure-unsure"];

/** The images of a session, and what its tasks share, each made once. */
export class Session {
  private readonly made = new Map<string, Promise<unknown>>();

  constructor(
    readonly t1w: Volume,
    readonly flair: Volume | null,
    readonly predictors: Predictors,
    readonly stage: Stage,
  ) {}

  brain(): Promise<Brain> {
    return this.once("brain", async () => {
      this.stage("Finding the brain");
      const brain = await findBrain(this.t1w, await this.predictors("brain"));
      if (brain.findings.some((one) => one.code === "skull-stripped")) return brain;
      this.stage("Measuring the intracranial volume");
      const whole = { ...brain, inside: await findInside(this.t1w, brain, await this.predictors("icv")) };
      if (!isFine(this.t1w.grid)) return whole;
      this.stage("Drawing the outline of the brain");
      return { ...whole, outline: await findOutline(evenedScan(this.t1w, brain), whole, await this.predictors("outline")) };
    });
  }

  /** The T1w, its brightness evened out where it is very uneven. */
  evened(): Promise<Volume> {
    return this.once("evened", async () => {
      return evenedScan(this.t1w, await this.brain());
    });
  }

  /** Whether the T1w looks better turned over; asked only where something is odd. */
  orientation(): Promise<Finding[]> {
    return this.once("orientation", async () => {
      this.stage("Checking the orientation");
      return checkOrientation(this.t1w, await this.predictors("brain"));
    });
  }

  /** The deep structures, and whether the scan is turned over. */
  async deepbrain(): Promise<{ result: Segmentation; turned: Finding[] }> {
    const brain = await this.brain();
    const result = await this.once("deepbrain", async () => {
      const volume = await this.evened();
      this.stage("Segmenting the deep structures");
      try {
        return await segmentDeepbrain(volume, brain, await this.predictors("deepbrain"));
      } catch (error) {
        if (!(error instanceof ScanError)) throw error;
        throw new ScanError([error.message, ...(await this.orientation()).map((one) => one.message)].join("; "));
      }
    });
    const odd = mayBeTurned(brain) || result.findings.some((one) => DOUBTFUL.includes(one.code));
    return { result, turned: odd ? await this.orientation() : [] };
  }

  private once<T>(what: string, make: () => Promise<T>): Promise<T> {
    if (!this.made.has(what)) this.made.set(what, make());
    return this.made.get(what) as Promise<T>;
  }
}

function evenedScan(volume: Volume, { uneven }: Brain): Volume {
  return uneven ? { ...volume, data: evened(uneven, volume.data, volume.grid) } : volume;
}

/** A result with what is known of the brain it was found in. */
function foundIn(brain: Brain, result: Segmentation, ...more: Finding[]): Segmentation {
  return { ...result, brainMm3: result.brainMm3 ?? brainVolume(brain), icvMm3: result.icvMm3 ?? icvVolume(brain), findings: [...brain.findings, ...more, ...result.findings] };
}

export const TASKS: Task[] = [
  {
    name: "brain",
    title: "Brain",
    models: ["brain", "icv", "outline"],
    needsFlair: false,
    segment: async (session) => {
      const brain = await session.brain();
      const turned = mayBeTurned(brain) ? await session.orientation() : [];
      return foundIn(brain, segmentBrain(session.t1w, brain, await session.predictors(brain.outline ? "outline" : "brain")), ...turned);
    },
  },
  {
    name: "deepbrain",
    title: "Deep brain structures",
    models: ["brain", "icv", "outline", "deepbrain"],
    needsFlair: false,
    segment: async (session) => {
      const { result, turned } = await session.deepbrain();
      return foundIn(await session.brain(), result, ...turned);
    },
  },
  {
    name: "hippocampus",
    title: "Hippocampus",
    models: ["brain", "icv", "outline", "deepbrain", "hippocampus"],
    needsFlair: false,
    segment: async (session) => {
      const { result, turned } = await session.deepbrain();
      const volume = await session.evened();
      session.stage("Segmenting the hippocampus");
      return foundIn(await session.brain(), await segmentHippocampus(volume, result, await session.predictors("hippocampus")), ...turned);
    },
  },
  {
    name: "wholebrain",
    title: "Whole brain",
    models: ["brain", "icv", "outline", "deepbrain", "sides", "wholebrain"],
    needsFlair: false,
    segment: async (session) => {
      const brain = await session.brain();
      const volume = await session.evened();
      const deep = await session.deepbrain().catch((error: unknown) => {
        if (error instanceof ScanError) return null; // the task deepbrain says so
        throw error;
      });
      session.stage("Segmenting the whole brain");
      return foundIn(brain, await segmentWholebrain(volume, brain, session.predictors, deep?.result ?? null));
    },
  },
  {
    name: "wml",
    title: "White-matter lesions",
    models: ["brain", "icv", "outline", "wml"],
    needsFlair: true,
    segment: async (session) => {
      session.stage("Segmenting white-matter lesions");
      const brain = await session.brain().catch(() => null);
      return segmentLesions(session, brain);
    },
  },
];

/** Run tasks one after the other; one that fails does not stop the rest. */
export async function run(session: Session, names: string[], done: (task: Task, result: Segmentation | ScanError) => void): Promise<void> {
  const seen = [...session.t1w.findings, ...checkImage(session.t1w)];
  for (const task of TASKS.filter((one) => names.includes(one.name))) {
    try {
      const result = await task.segment(session);
      done(task, { ...result, findings: [...seen, ...result.findings] });
    } catch (error) {
      if (!(error instanceof ScanError)) throw error;
      done(task, error);
    }
  }
}
