// Makes the tables' headers buttons that sort. Without it, the tables stand as they are, by rank. Comparisons are
// written with ">" alone, so that the page is well-formed XML too.
"use strict";
for (const table of document.querySelectorAll("table.board")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table.tBodies[0], headers, column));
  });
}

function sort(body, headers, column) {
  const header = headers[column], before = header.getAttribute("aria-sort");
  // Accuracies begin with the highest.
  const first = header.classList.contains("number") ? "descending" : "ascending";
  const order = before === null ? first : before === "ascending" ? "descending" : "ascending";
  headers.forEach(one => one.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...body.rows].sort((a, b) => sign * compared(a.cells[column], b.cells[column]));
  body.append(...rows);
}

function compared(a, b) {
  if (a.dataset.value !== undefined) return Number(a.dataset.value) - Number(b.dataset.value);
  // What a cell begins with: the words in small type below do not count.
  return a.firstChild.textContent.localeCompare(b.firstChild.textContent, "en", { numeric: true });
}
