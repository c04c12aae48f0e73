"use strict";
// A class: name, color. A case: n name, v volumes (one a class, ml or px; none where it failed), f findings
// ([class, kind, text]), p link to its preview, t thumbnail (JPEG, base64), e error, o notes, s seconds.
const { classes, cases } = JSON.parse(document.getElementById("data").textContent);
const PAGE = 50;
const table = document.getElementById("table");
const text = document.getElementById("text");
const show = document.getElementById("show");
const columns = [
  { name: "Case", key: (item) => item.n },
  { name: "Findings", key: (item) => item.f.length + item.o.length + (item.e ? 1000 : 0) },
  ...classes.map((organ, k) => ({ name: organ.name, color: organ.color, key: (item) => item.v[k] })),
  { name: "Seconds", key: (item) => item.s },
];
const state = { column: -1, sign: 1, page: 0 };
const kinds = { all: () => true, findings: (item) => item.f.length, failed: (item) => item.e, notes: (item) => item.o.length };

function element(tag, content, name) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...[content ?? []].flat());
  return made;
}

function format(size) {
  if (!size) return size === 0 ? "0" : "";
  return size < 10 ? size.toFixed(2) : size < 100 ? size.toFixed(1) : size.toFixed(0);
}

function number(value, name) {
  const cell = element("td", format(value), "size");
  cell.dataset.name = name;  // shown on narrow screens, which have no columns
  return cell;
}

function matches(item, words) {
  const all = [item.n, item.e, ...item.o, ...item.f.map((finding) => finding[2])].join("\n").toLowerCase();
  return kinds[show.value](item) && all.includes(words);
}

function order(a, b) {
  const [x, y] = [a, b].map(columns[state.column].key);
  const empty = (x ?? "") === "" ? 1 : (y ?? "") === "" ? -1 : 0;  // failed cases last, either way
  if (empty) return x === y ? 0 : empty;
  return state.sign * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
}

function heading(column, k) {
  const button = element("button", column.name.replaceAll("_", "_\u200b"));  // a long name may break there
  button.type = "button";
  if (column.color) button.prepend(element("i"));
  if (column.color) button.firstChild.style.background = column.color;
  button.onclick = () => sortBy(k);
  const cell = element("th", button, column.color || column.name === "Seconds" ? "size" : "");
  cell.scope = "col";
  if (k === state.column) cell.setAttribute("aria-sort", state.sign > 0 ? "ascending" : "descending");
  if (k === state.column) button.append(state.sign > 0 ? " ▲" : " ▼");
  return cell;
}

function caseCell(item) {
  const place = item.p ? element("a") : element("span");
  if (item.p) place.href = item.p;
  if (item.t) {
    const picture = element("img");
    Object.assign(picture, { loading: "lazy", decoding: "async", alt: "", src: "data:image/jpeg;base64," + item.t });
    place.append(picture);
  }
  place.append(item.n);
  const cell = element("th", place);
  cell.scope = "row";
  return cell;
}

function findingsCell(item) {
  const lines = item.f.map(([, kind, words]) => element("li", words, kind === "cut" ? "warn" : "bad"));
  lines.push(...item.o.map((note) => element("li", note)));
  if (item.e) lines.unshift(element("li", "failed: " + item.e, "bad"));
  return element("td", lines.length ? element("ul", lines) : [], "findings");
}

function row(item) {
  const marks = { cut: ["cut", "warn"], absent: ["absent", "bad"], outlier: ["unlikely", "bad"] };
  const sizes = classes.map((organ, k) => number(item.v[k], organ.name));
  for (const [k, kind] of item.f) sizes[k].append(element("small", ...marks[kind]));
  return element("tr", [caseCell(item), findingsCell(item), ...sizes, number(item.s, "Seconds")]);
}

function draw() {
  const found = cases.filter((item) => matches(item, text.value.trim().toLowerCase()));
  if (state.column >= 0) found.sort(order);
  const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
  state.page = Math.min(Math.max(state.page, 0), last);
  const first = state.page * PAGE;
  const rows = found.slice(first, first + PAGE);
  table.replaceChildren(element("thead", element("tr", columns.map(heading))), element("tbody", rows.map(row)));
  const shown = rows.length < found.length ? `, ${first + 1} to ${first + rows.length} shown` : "";
  document.getElementById("count").textContent = `${found.length} of ${cases.length} cases${shown}`;
  document.querySelector(".pages").hidden = last === 0;
  document.getElementById("previous").disabled = state.page === 0;
  document.getElementById("next").disabled = state.page === last;
}

function sortBy(k) {
  state.sign = state.column === k ? -state.sign : 1;
  Object.assign(state, { column: k, page: 0 });
  draw();
}

function turn(step) {
  state.page += step;
  draw();
}

text.oninput = show.onchange = () => turn(-state.page);
document.getElementById("filter").onsubmit = (event) => event.preventDefault();
document.getElementById("previous").onclick = () => turn(-1);
document.getElementById("next").onclick = () => turn(1);
for (const button of document.querySelectorAll("[data-case]")) {
  button.onclick = () => {
    [text.value, show.value] = [button.dataset.case, "all"];
    turn(-state.page);
    document.getElementById("cases").scrollIntoView();
  };
}
draw();
