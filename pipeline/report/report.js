"use strict";
// Tables sort by a click, or by Enter or Space, on a column's head; without scripts they stay as they are.

const UNKNOWN = "–";

/** Return a cell's number, its text in small letters, or null where it is empty or spans several columns. */
function valueOf(row, column) {
  const cell = row.cells[column];
  if (!cell || cell.colSpan > 1) return null;
  const text = cell.textContent.trim();
  if (!text || text === UNKNOWN) return null;
  const number = /^[<−-]?\s*[\d.,]+(e[+-]?\d+)?/i.exec(text);
  if (!number || cell.tagName === "TH") return text.toLowerCase();
  return Number(number[0].replace(/[<,\s]/g, "").replace("−", "-"));
}

function compare(one, other) {
  return typeof one === "number" && typeof other === "number"
    ? one - other
    : String(one).localeCompare(String(other), "en", { numeric: true });
}

/** Sort by a column; rows without a value come last in both directions. */
function sort(table, heads, column) {
  const head = heads[column];
  const before = head.getAttribute("aria-sort");
  const falling = before ? before === "ascending" : head.textContent.includes("↑");
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, value: valueOf(row, column) }));
  rows.sort((one, other) => {
    if (one.value === null || other.value === null) return (one.value === null) - (other.value === null);
    return (falling ? -1 : 1) * compare(one.value, other.value);
  });
  table.tBodies[0].append(...rows.map(({ row }) => row));
  const said = `${table.caption.textContent}: sorted by ${head.textContent.trim()}, ${head.getAttribute("aria-sort")}`;
  document.getElementById("sorted").textContent = said;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, heads, column));
    head.append(button);
  });
}

// On paper nothing can be unfolded.
const unfolded = [];
addEventListener("beforeprint", () => {
  unfolded.push(...document.querySelectorAll("details:not([open])"));
  for (const details of unfolded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of unfolded.splice(0)) details.open = false;
});
