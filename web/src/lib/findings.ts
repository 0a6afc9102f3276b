// What was noticed about an image or a segmentation, with the codes and sentences of the app.

export type Severity = "error" | "warning" | "info";

export interface Finding {
  code: string;
  severity: Severity;
  message: string;
}

/** An image or a result that cannot be used: the message is for people. */
export class ScanError extends Error {}

const ORDER: Severity[] = ["error", "warning", "info"];

/** Each finding once, the most severe first. */
export function worstFirst(findings: Finding[]): Finding[] {
  const every = new Map(findings.map((one) => [`${one.code} ${one.message}`, one]));
  return [...every.values()].sort((a, b) => ORDER.indexOf(a.severity) - ORDER.indexOf(b.severity));
}

export function finding(code: string, severity: Severity, message: string): Finding {
  return { code, severity, message };
}

/** A number as C's %g prints it, with so many significant digits. */
export function general(value: number, digits = 6): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (value === 0) return "0";
  const exponent = Number(value.toExponential(digits - 1).split("e")[1]);
  if (exponent < -4 || exponent >= digits) {
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    const short = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
    return `${short}e${power[0]}${power.slice(1).padStart(2, "0")}`;
  }
  const fixed = value.toFixed(Math.max(0, digits - 1 - exponent));
  return fixed.includes(".") ? fixed.replace(/\.?0+$/, "") : fixed;
}

export function times(edges: ArrayLike<number>): string {
  return Array.from(edges, (edge) => general(edge, 4)).join(" x ");
}

export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
