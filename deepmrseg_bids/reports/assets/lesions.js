"use strict";
// The list of lesions: a click takes the viewer of the session to the lesion.

for (const table of document.querySelectorAll("table.lesions")) {
  const session = table.closest(".session");
  const viewer = viewers.find((one) => session.contains(one.section));
  const map = viewer ? viewer.places.findIndex((one) => one.task === table.dataset.lesions) : -1;
  for (const row of map < 0 ? [] : table.querySelectorAll("tr[data-mm]")) {
    const centre = row.dataset.mm.split(",").map(Number);
    makeReachable(row, () => viewer.go(map, { centre }));
  }
}
