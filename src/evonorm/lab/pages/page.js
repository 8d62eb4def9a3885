"use strict";
// What every page does: draws its charts in the reader's theme, links their legends, hands them out as pictures,
// gives headings an address, and sorts and filters tables.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const shown = {responsive: true, displaylogo: false, displayModeBar: false};
const colours = (ink, grid, ground) => ({
  paper_bgcolor: ground, plot_bgcolor: ground, "font.color": ink,
  "xaxis.gridcolor": grid, "yaxis.gridcolor": grid, "xaxis.zerolinecolor": grid, "yaxis.zerolinecolor": grid,
});
const themed = () => {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  return colours(value("--ink"), value("--grid"), "rgba(0,0,0,0)");
};
const charts = [...document.querySelectorAll(".chart")];
for (const chart of charts) {
  const figure = JSON.parse(chart.nextElementSibling.textContent);
  Plotly.newPlot(chart, figure.data, figure.layout, shown).then(() => Plotly.relayout(chart, themed()));
}
const retheme = () => charts.forEach((chart) => Plotly.relayout(chart, themed()));
dark.addEventListener("change", retheme);
// Paper is light whatever the screen is.
window.matchMedia("print").addEventListener("change", retheme);

// ---- legends: what one chart of a section hides, the others hide too
(() => {
  const key = (trace) => trace.legendgroup || trace.name || "";
  const follow = (chart, leader) => {
    const states = new Map(leader.data.map((trace) => [key(trace), trace.visible ?? true]));
    const indices = [], visible = [];
    chart.data.forEach((trace, index) => {
      const state = states.get(key(trace));
      if (key(trace) && state !== undefined && state !== (trace.visible ?? true)) {
        indices.push(index);
        visible.push(state);
      }
    });
    // Nothing to change ends the round: this chart's own event finds the others as it is.
    if (indices.length) Plotly.restyle(chart, {visible}, indices);
  };
  for (const section of document.querySelectorAll("section")) {
    const own = charts.filter((chart) => chart.closest("section") === section);
    for (const chart of own) {
      chart.on("plotly_restyle", ([changed]) => {
        if ("visible" in changed) own.filter((other) => other !== chart).forEach((other) => follow(other, chart));
      });
    }
  }
})();

// ---- a chart as a file: on white, with its title
(() => {
  const escaped = (text) => text.replace(/[&<>$%{}]/g, (letter) => `&#${letter.charCodeAt(0)};`);
  const titleOf = (chart) =>
    (chart.closest("figure").querySelector("h3") || chart.closest("section").querySelector("h2")).firstChild.textContent;
  const fileOf = (title) => title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "chart";
  const picture = (chart, format) => {
    const layout = JSON.parse(JSON.stringify(chart.layout));
    for (const [path, colour] of Object.entries(colours("#1d1f21", "#e6e8eb", "#ffffff"))) {
      const [outer, inner] = path.split(".");
      if (inner) layout[outer] = {...layout[outer], [inner]: colour}; else layout[outer] = colour;
    }
    for (const note of layout.annotations || []) note.bgcolor = note.bgcolor && "#ffffff";
    layout.title = {text: escaped(titleOf(chart)), x: 0, xref: "paper", y: 1, yref: "container", yanchor: "top", pad: {t: 12}, font: {size: 16}};
    layout.margin = {...layout.margin, t: (layout.margin?.t ?? 0) + 44};
    layout.autosize = false;
    const size = {width: Math.max(700, chart.clientWidth), height: chart.clientHeight + 44};
    return Plotly.toImage({data: chart.data, layout}, {format, ...size, scale: format === "png" ? 2 : 1});
  };
  for (const chart of charts) {
    const buttons = document.createElement("p");
    buttons.className = "take";
    for (const format of ["png", "svg"]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = format.toUpperCase();
      button.setAttribute("aria-label", `Download ${titleOf(chart)} as ${format.toUpperCase()}`);
      button.addEventListener("click", async () => {
        const link = document.createElement("a");
        link.href = await picture(chart, format);
        link.download = `${fileOf(titleOf(chart))}.${format}`;
        link.click();
      });
      buttons.append(button);
    }
    chart.closest("figure").append(buttons);
  }
})();

// ---- headings have an address
(() => {
  const taken = new Set([...document.querySelectorAll("[id]")].map((one) => one.id));
  const named = (text) => {
    const plain = text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "part";
    let id = plain;
    for (let count = 2; taken.has(id); count++) id = `${plain}-${count}`;
    taken.add(id);
    return id;
  };
  for (const heading of document.querySelectorAll("main h2, main h3")) {
    const text = heading.textContent.trim();
    heading.id = heading.id || named(text);
    // The section goes on being called by the heading alone.
    for (const section of document.querySelectorAll(`[aria-labelledby="${CSS.escape(heading.id)}"]`)) {
      section.removeAttribute("aria-labelledby");
      section.setAttribute("aria-label", text);
    }
    const link = document.createElement("a");
    link.className = "anchor";
    link.href = `#${encodeURIComponent(heading.id)}`;
    link.textContent = "#";
    link.setAttribute("aria-label", `Link to ${text}`);
    heading.append(" ", link);
  }
})();

// ---- tables: numbers by size, texts by letters, what is missing last either way
const sortable = (table) => {
  const headers = [...table.tHead.rows[0].cells], rows = [...table.tBodies[0].rows];
  const keyOf = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.sort ?? cell.textContent.trim();
    if (text === "" || text === "–") return null;
    if (!headers[column].classList.contains("number")) return text;
    const number = parseFloat(text.replaceAll(",", "").replace("−", "-"));
    return Number.isNaN(number) ? null : number;
  };
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const down = header.getAttribute("aria-sort") === "ascending";
    headers.forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keys = rows.map((row) => keyOf(row, column)), sign = down ? -1 : 1;
    const order = rows.map((_, place) => place).sort((a, b) => {
      const [one, other] = [keys[a], keys[b]];
      if (one === null || other === null) return (one === null) - (other === null) || a - b;
      // In a text's column keys in place of texts are numbers: their order is the one that was given.
      const compared = typeof one === "string" ? one.localeCompare(other, undefined, {numeric: true}) : one - other;
      return sign * compared || a - b;
    });
    table.tBodies[0].append(...order.map((place) => rows[place]));
  }));
};
document.querySelectorAll("table.sorted").forEach(sortable);

// What of the rows passes a bar's words and statuses. changed: called when a reader changes them.
const filtering = (bar, rows, changed) => {
  const words = bar.querySelector("input[type=search]"), boxes = [...bar.querySelectorAll("input[type=checkbox]")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  bar.addEventListener("input", changed);
  return {
    tests: () => {
      const found = [], text = words.value.trim().toLowerCase();
      const open = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
      if (open.size < boxes.length) found.push((place) => open.has(rows[place].dataset.status));
      if (text) found.push((place) => texts[place].includes(text));
      return found;
    },
    clear: () => {
      words.value = "";
      for (const box of boxes) box.checked = true;
    },
  };
};
for (const bar of document.querySelectorAll(".filter[data-tables]")) {
  const rows = bar.dataset.tables.split(" ").flatMap((id) => [...document.getElementById(id).tBodies[0].rows]);
  const filter = filtering(bar, rows, () => {
    const tests = filter.tests();
    rows.forEach((row, place) => { row.hidden = !tests.every((test) => test(place)); });
    const passing = rows.filter((row) => !row.hidden).length;
    bar.querySelector("[role=status]").textContent = `${passing} of ${rows.length}` + (tests.length ? " pass" : "");
  });
}
