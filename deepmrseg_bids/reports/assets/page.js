"use strict";
// What all pages share: data and libraries that lie in the page, compressed until they are asked for.
const page = {
  /** The bytes of a script element that holds gzip as base64. */
  async bytes(id) {
    const packed = document.getElementById(id).textContent.trim();
    const raw = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  },
  /** Start a library: its hash is in the content security policy, so nothing else can start here. */
  async library(name) {
    if (!page.started[name]) {
      page.started[name] = page.bytes("library-" + name).then((bytes) => {
        const script = document.createElement("script");
        script.textContent = new TextDecoder().decode(bytes);
        document.head.append(script);
      });
    }
    await page.started[name];
  },
  started: {},
  /** Hand a text to the reader as a file. */
  save(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  },
};

/** Reasons, separated by semicolons, of which the first are the worst: no more than can be read. */
function firstOf(text, most = 4) {
  const all = (text || "").split("; ");
  return all.slice(0, most).join("; ") + (all.length > most ? `; and ${all.length - most} more` : "");
}
