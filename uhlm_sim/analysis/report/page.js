// What the page can do where scripts run: sort tables, hide policies and metrics, read the first figure by keyboard.
// It loads nothing and keeps nothing; without it the page reads the same.
"use strict";
(() => {
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

const columnsOf = (table) => all("thead th:not(.group)", table); // those of groups stand above several

// A header's first click sorts upwards, the second downwards, the third goes back to the first order; nulls come last.
const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
for (const table of all("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = columnsOf(table);
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    head.ariaSort = "none";
    button.addEventListener("click", () => {
      const order = NEXT[head.ariaSort], sign = order === "ascending" ? 1 : -1;
      for (const other of heads) other.ariaSort = "none";
      head.ariaSort = order;
      const keyed = rows.map((row) => [valueOf(row.cells[column]), row]);
      if (order !== "none") {
        keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
      }
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

// Return a row of checkboxes, all on; `show` is called with a name and whether it is on.
function choices(legend, names, show) {
  const boxes = names.map((name) => {
    const box = make("input", { type: "checkbox", checked: true, autocomplete: "off" });
    box.addEventListener("change", () => show(name, box.checked));
    return make("label", {}, box, ` ${name}`);
  });
  return make("fieldset", { className: "choices" }, make("legend", {}, legend), ...boxes);
}

const setShown = (element, on) => element?.classList.toggle("off", !on);
const distinct = (elements, name) => [...new Set(elements.map(name))];
const partOf = (element) => element.closest("details.part").querySelector("span[id]");

const owned = all("[data-policy]");
const policies = distinct(owned.filter((e) => e.matches("tr, th")), (e) => e.dataset.policy);
const start = document.querySelector("#answers ~ .scroll, #answers ~ figure");
if (policies.length > 1) {
  start?.before(choices("Policies shown", policies, (policy, on) => {
    for (const element of owned.filter((e) => e.dataset.policy === policy)) {
      const column = element.matches("th") && element.cellIndex; // a header's whole column, else a row or a mark
      if (column) for (const row of element.closest("table").rows) setShown(row.cells[column], on);
      else setShown(element, on);
    }
  }));
}

const groups = all("th.group");
if (groups.length) {
  partOf(groups[0]).after(choices("Columns shown", distinct(groups, (e) => e.textContent), (title, on) => {
    for (const group of groups.filter((e) => e.textContent === title)) {
      setShown(group, on);
      const table = group.closest("table"), heads = columnsOf(table), before = all("th.group", table);
      const width = (some) => some.reduce((sum, e) => sum + e.colSpan, 0);
      const first = heads.length - width(before.slice(before.indexOf(group)));
      for (const cells of [heads, ...[...table.tBodies[0].rows].map((row) => [...row.cells])]) {
        for (const cell of cells.slice(first, first + group.colSpan)) setShown(cell, on);
      }
    }
  }));
}
const families = all("tr.family");
if (families.length) {
  partOf(families[0]).after(choices("Metrics shown", distinct(families, (e) => e.textContent.trim()), (title, on) => {
    for (const family of families.filter((e) => e.textContent.trim() === title)) {
      setShown(family, on);
      for (let row = family.nextElementSibling; row && !families.includes(row); row = row.nextElementSibling) {
        setShown(row, on);
      }
    }
  }));
}

const figure = document.querySelector("figure svg");
if (figure) {
  const hint = "Point at a mark to read its value here, or reach the figure with Tab and go through it with the arrow keys.";
  const line = make("p", { className: "readout", ariaHidden: "true" }, hint);
  figure.parentNode.after(line);
  const read = (event) => {
    line.textContent = event.target.closest(":is(g, circle):has(> title)")?.querySelector("title").textContent ?? hint;
  };
  for (const happens of ["mouseover", "focusin"]) figure.addEventListener(happens, read);
  const marks = all("[role=img]", figure);
  figure.setAttribute("tabindex", "0");
  for (const mark of marks) mark.setAttribute("tabindex", "-1");
  figure.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const shown = marks.filter((mark) => !mark.closest(".off")), at = shown.indexOf(document.activeElement);
    shown.at(at < 0 ? (step > 0 ? 0 : -1) : (at + step) % shown.length)?.focus();
  });
}
})();
