// What the page can do where scripts run: sort tables, hide policies and metrics, read the first figure by keyboard.
// It loads nothing and keeps nothing; without it the page reads the same.
(() => {
"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// A cell's number, or its text, or null where it is empty or a dash. The interval stands in an element of its own.
function valueOf(cell) {
  const text = (cell.firstChild?.textContent ?? "").trim().replaceAll("−", "-");
  const number = text.replaceAll(",", "").match(/^≈?(-?[\d.]+(?:e[-+]?\d+)?)(?:$|[ x×%(])/i);
  return number ? Number(number[1]) : /^[–-]?$/.test(text) ? null : text;
}

function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
}

const columnsOf = (table) => all("thead th:not(.group)", table); // a group stands above several
// The first click on a header sorts upwards, the second downwards, the third restores the first order; nulls are last.
const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
for (const table of all("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = columnsOf(table);
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const order = NEXT[head.getAttribute("aria-sort")], sign = order === "ascending" ? 1 : -1;
      for (const other of heads) other.setAttribute("aria-sort", other === head ? order : "none");
      const keyed = rows.map((row) => [valueOf(row.cells[column]), row]);
      if (order !== "none") {
        keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
      }
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

// Make a row of checkboxes, all on: each shows and hides the elements that a map has under its name.
function choices(legend, elements) {
  const labels = [...elements].map(([name, some]) => {
    const box = make("input", { type: "checkbox", checked: true, autocomplete: "off" });
    box.addEventListener("change", () => some.forEach((element) => element.classList.toggle("off", !box.checked)));
    return make("label", {}, box, ` ${name}`);
  });
  return elements.size > 1 ? make("fieldset", { className: "choices" }, make("legend", {}, legend), ...labels) : "";
}

const put = (map, name, some) => map.set(name, (map.get(name) ?? []).concat(some));
const startOf = (element) => element?.closest("details.part").querySelector("span[id]");
const policies = new Map(), groups = new Map(), families = new Map();
for (const row of all("tr[data-policy]")) put(policies, row.dataset.policy, row);
for (const head of all("th[data-policy]")) { // a column of a table whose rows aren't policies; some rows are one cell
  put(policies, head.dataset.policy, [...head.closest("table").rows].flatMap((row) => row.cells[head.cellIndex] ?? []));
}
for (const mark of all(".mark")) if (policies.has(mark.dataset.policy)) put(policies, mark.dataset.policy, mark);
document.querySelector("#answers ~ .scroll, #answers ~ figure")?.before(choices("Policies shown", policies));

for (const table of all("table.wide:has(th.group)")) {
  const heads = columnsOf(table), rows = [heads, ...[...table.tBodies[0].rows].map((row) => [...row.cells])];
  let end = heads.length; // backwards: the columns that no group is above are the first
  for (const group of all("th.group", table).reverse()) {
    put(groups, group.textContent, [group, ...rows.flatMap((cells) => cells.slice(end - group.colSpan, end))]);
    end -= group.colSpan;
  }
}
startOf(document.querySelector("th.group"))?.after(choices("Columns shown", new Map([...groups].reverse())));

let family;
for (const row of all(".full tbody tr")) {
  if (row.matches(".family")) family = row.textContent.trim();
  put(families, family, row);
}
startOf(document.querySelector(".full"))?.after(choices("Metrics shown", families));

const figure = document.querySelector("figure svg");
if (figure) {
  const hint = "Point at a mark to read its value here, or reach the figure with Tab and its marks with arrow keys.";
  const line = make("p", { className: "readout" }, hint), marks = all("[role=img]", figure);
  figure.closest(".scroll").after(line);
  for (const element of [figure, ...marks]) element.setAttribute("tabindex", element === figure ? "0" : "-1");
  for (const happening of ["mouseover", "focusin"]) figure.addEventListener(happening, (event) => {
    line.textContent = event.target.closest(":has(> title)")?.querySelector("title").textContent ?? hint;
  });
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const shown = marks.filter((mark) => !mark.closest(".off")), at = shown.indexOf(document.activeElement);
    if (!step) return;
    event.preventDefault();
    shown.at(at < 0 ? (step > 0 ? 0 : -1) : (at + step) % shown.length)?.focus();
  });
}
})();
