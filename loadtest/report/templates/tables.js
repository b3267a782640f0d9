"use strict";
// Sorts tables of class "sortable" by a column, with each row's notes: a row is a <tbody> of its own.
(() => {
  const value = (group, column) => {
    const cell = group.rows[0].cells[column];
    const figure = cell.querySelector("data");
    return figure ? Number(figure.value) : cell.textContent.trim();
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // what has no figure comes last
    return a.localeCompare(b, "en", { numeric: true });
  };
  const sort = (table, heading) => {
    const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const groups = [...table.tBodies].map((group) => [value(group, heading.cellIndex), group]);
    groups.sort((a, b) => sign * compare(a[0], b[0]));
    table.append(...groups.map((pair) => pair[1]));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    table.tHead.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) sort(table, button.closest("th"));
    });
  }
})();
