// The page: its scripts by Vite; models, runtime and service worker are copied beside them.
// MODELS names the folder that build_models.py wrote (default: ../build/web-models).

import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import { defaultClientConditions, defineConfig } from "vite";

const here = import.meta.dirname;
const models = resolve(process.env.MODELS ?? join(here, "../build/web-models"));
const runtime = join(here, "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded");
const LARGEST = 25e6; // bytes of all files together
const sha256 = (data) => createHash("sha256").update(data).digest("hex");

function filesIn(folder) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? filesIn(path) : [path];
  });
}

/** Copies what Vite does not know, and lists all files for the service worker. */
function beside() {
  let out = "";
  return {
    name: "beside",
    apply: "build", // not the tests, which close a bundle that they never made
    configResolved: (config) => {
      out = resolve(config.root, config.build.outDir);
    },
    closeBundle: () => {
      for (const folder of ["models", "ort"]) mkdirSync(join(out, folder), { recursive: true });
      for (const name of readdirSync(models)) copyFileSync(join(models, name), join(out, "models", name));
      copyFileSync(`${runtime}.mjs`, join(out, "ort/runtime.js")); // many hosts do not know .mjs
      writeFileSync(join(out, "ort/runtime.wasm.gz"), gzipSync(readFileSync(`${runtime}.wasm`), { level: 9 }));
      const names = filesIn(out).map((path) => relative(out, path)).filter((name) => name !== "sw.js").sort();
      const version = sha256(names.map((name) => sha256(readFileSync(join(out, name)))).join()).slice(0, 16);
      const text = readFileSync(join(here, "src/sw.js"), "utf8");
      writeFileSync(join(out, "sw.js"), text.replace("__FILES__", JSON.stringify(names)).replace("__BUILD__", version));
      const size = filesIn(out).reduce((total, path) => total + statSync(path).size, 0);
      if (size > LARGEST) throw new Error(`the page has ${(size / 1e6).toFixed(1)} MB, at most ${LARGEST / 1e6} MB were intended: store more weights coarsely (web/build_models.py)`);
    },
  };
}

export default defineConfig(({ command }) => ({
  base: "./",
  publicDir: false,
  define:
    command === "build"
      ? {
          __VERSION__: JSON.stringify(JSON.parse(readFileSync(join(models, "models.json"), "utf8")).version),
          __MODELS_SHA256__: JSON.stringify(sha256(readFileSync(join(models, "models.json")))),
        }
      : {},
  resolve: {
    // the runtime lies compressed beside the page, see below
    conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions],
    // NiiVue reads Zarr, too, whose compression nobody needs here
    alias: [{ find: /^numcodecs\/.*/, replacement: join(here, "src/no-codec.ts") }],
  },
  worker: { format: "es" },
  build: { target: "es2022", chunkSizeWarningLimit: 4000, assetsInlineLimit: 0 },
  plugins: [beside()],
  test: { include: ["test/**/*.test.ts"], testTimeout: 60_000 },
}));
