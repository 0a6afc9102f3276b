// The models that lie beside the page: only those that it was built with.

import { ScanError } from "./lib/index";
import type { Bundle } from "./lib/index";

declare const __VERSION__: string;
declare const __MODELS_SHA256__: string;

export const VERSION = __VERSION__;

export interface Model {
  files: { name: string; sha256: string }[];
  bundle: Bundle;
}

export type Models = Record<string, Model>;

/** The list of the models; others than those that the page was built with are refused. */
export async function loadModels(base: string): Promise<Models> {
  const url = new URL("models/models.json", base);
  const content = await fetched(url);
  await check(content, __MODELS_SHA256__, url);
  const { version, models } = listOf(content);
  if (version !== VERSION) throw refusal(`the models are of version ${version}, the page of version ${VERSION}`);
  return models;
}

function listOf(content: Uint8Array): { version: string; models: Models } {
  try {
    return JSON.parse(new TextDecoder().decode(content));
  } catch {
    throw refusal("the list of the models is damaged");
  }
}

function refusal(what: string): ScanError {
  return new ScanError(`The models do not belong to this page: ${what}. Reload the page; if that does not help, all files of one release must be installed on the server again.`);
}

/** A model, as build_models.py wrote it: the bytes at even places, then those at odd ones. */
export async function loadModel(url: URL, sha256: string): Promise<Uint8Array> {
  const parts = await fetched(url);
  const half = Math.ceil(parts.length / 2);
  const model = parts.map((_, n) => parts[n % 2 ? half + (n - 1) / 2 : n / 2]);
  await check(model, sha256, url);
  return model;
}

/** A file of this host; decompressed where it is compressed. */
export async function fetched(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  const content = await loaded(url);
  const gzip = content[0] === 0x1f && content[1] === 0x8b; // some hosts decompress .gz themselves
  if (!gzip) return content;
  try {
    return new Uint8Array(await new Response(new Blob([content]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  } catch {
    throw refusal(`${url.pathname} is incomplete or damaged`);
  }
}

async function loaded(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  const advice = "Check the connection to the server, then reload the page.";
  try {
    const answer = await fetch(url);
    if (answer.ok) return new Uint8Array(await answer.arrayBuffer());
    throw new ScanError(`${url.pathname} could not be loaded: the server answered with status ${answer.status}. ${advice}`);
  } catch (error) {
    if (error instanceof ScanError) throw error;
    throw new ScanError(`${url.pathname} could not be loaded: no answer from the server. ${advice}`);
  }
}

async function check(content: Uint8Array<ArrayBuffer>, sha256: string, url: URL): Promise<void> {
  // only pages of https and of this computer may compute checksums
  if (crypto.subtle && (await checksum(content)) !== sha256) throw refusal(`the checksum of ${url.pathname} differs`);
}

async function checksum(content: Uint8Array<ArrayBuffer>): Promise<string> {
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
