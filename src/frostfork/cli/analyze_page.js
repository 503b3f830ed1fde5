// SPDX-License-Identifier: Apache-2.0
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = () => document.documentElement.clientWidth < 700;
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const options = { displayModeBar: false, responsive: true, scrollZoom: false };
  let measure = "seconds";

  const layout = (more) => ({
    paper_bgcolor: color("--page"),
    plot_bgcolor: color("--page"),
    font: { color: color("--text"), family: "system-ui, sans-serif", size: narrow() ? 11 : 13 },
    dragmode: false, // a finger that moves over a figure scrolls the page
    margin: { t: 8, r: 8, b: 8, l: 8 },
    hoverlabel: { bgcolor: color("--raised"), bordercolor: color("--line"), font: { color: color("--text") }, align: "left" },
    ...more,
  });
  const axis = (more) => ({
    gridcolor: color("--line"), zerolinecolor: color("--line"), linecolor: color("--line"), automargin: true, ...more,
  });
  // Both ends of a scale must stand out from the page, or a small value looks like none.
  const scale = () => dark.matches
    ? [[0, "#27496a"], [0.35, "#2f74a8"], [0.7, "#6cb6f5"], [1, "#e8f4ff"]]
    : [[0, "#d3e6f5"], [0.35, "#7fb5dd"], [0.7, "#2474b5"], [1, "#08306b"]];
  const shades = () => dark.matches
    ? ["#2d5b86", "#2f6b5a", "#6b4d86", "#80562f", "#7d3f52", "#47627a", "#5d6530"]
    : ["#b9d7ef", "#bfe3d4", "#dccdee", "#f3d9bd", "#f2c7d1", "#ccd8e3", "#dfe4b4"];

  function treemap() {
    const figure = data.treemap;
    const trace = {
      type: "treemap", ids: figure.ids, labels: figure.labels, parents: figure.parents, branchvalues: "total",
      values: figure.values[measure], text: figure.shown[measure], customdata: figure.texts,
      hovertemplate: "<b>%{label}</b>: %{text}<br>%{customdata}<extra></extra>", texttemplate: "%{label}<br>%{text}",
      maxdepth: narrow() ? 2 : 3, tiling: { pad: 1 }, pathbar: { visible: true, thickness: 24 },
      root: { color: color("--page") }, textfont: { color: color("--text") },
      marker: {
        colors: figure.shades.map((at) => shades()[at % shades().length]),
        line: { width: 1, color: color("--page") }, pad: { t: 20, l: 2, r: 2, b: 2 },
      },
    };
    return [[trace], layout({})];
  }

  function overlap() {
    const figure = data.overlap;
    const size = narrow() ? 18 : 22;
    const trace = {
      type: "heatmap", x: figure.x.map((_, i) => i), y: figure.y.map((_, i) => i), z: figure.z, text: figure.full,
      colorscale: scale(), hoverongaps: false, xgap: 1, ygap: 1,
      customdata: figure.z.map(() => figure.x),
      hovertemplate: "%{text}<br>%{customdata}: %{z:.3s}s<extra></extra>",
      colorbar: { title: { text: "seconds", side: "right" }, thickness: 12, outlinewidth: 0, tickcolor: color("--quiet"), len: 0.9 },
      showscale: !narrow(),
    };
    const cut = (text, most) => text.length > most ? text.slice(0, most - 1) + "…" : text;
    const [names, wide] = narrow() ? [14, 12] : [30, 26];
    const height = figure.y.length * size + 190;
    const place = document.getElementById("overlap");
    place.style.height = height + "px";
    place.style.minWidth = figure.x.length * 20 + (narrow() ? 120 : 320) + "px"; // its box scrolls, not the page
    return [[trace], layout({
      xaxis: axis({ tickmode: "array", tickvals: figure.x.map((_, i) => i), ticktext: figure.x.map((x) => cut(x, wide)), tickangle: -60,
        side: "top", showgrid: false, zeroline: false, fixedrange: true }),
      yaxis: axis({ tickmode: "array", tickvals: figure.y.map((_, i) => i), ticktext: figure.y.map((y) => cut(y, names)),
        autorange: "reversed", showgrid: false, zeroline: false, fixedrange: true }),
      height,
    })];
  }

  function scatter() {
    const figure = data.scatter;
    const most = Math.max(1, ...figure.sizes);
    const labelled = narrow() ? 4 : 9;
    const trace = {
      type: "scatter", mode: "markers+text", x: figure.x, y: figure.y, customdata: figure.texts,
      text: figure.names.map((name, i) => i < labelled ? name : ""), textposition: figure.names.map((_, i) => i % 2 ? "bottom center" : "top center"), cliponaxis: false,
      textfont: { color: color("--text") },
      marker: { size: figure.sizes.map((size) => 8 + 18 * Math.sqrt(size / most)), color: color("--accent"), opacity: 0.75,
        line: { width: 1, color: color("--page") } },
      hovertemplate: "%{customdata}<extra></extra>",
    };
    return [[trace], layout({
      margin: { t: 24, r: 24, b: 48, l: 64 }, showlegend: false,
      xaxis: axis({ type: "log", title: { text: "private MB a file" }, fixedrange: true, dtick: 1 }),
      yaxis: axis({ type: "log", title: { text: "seconds saved" }, fixedrange: true, dtick: 1 }),
    })];
  }

  const figures = { treemap, overlap, scatter };
  const draw = () => Promise.all(Object.entries(figures).map(([name, make]) => Plotly.react(name, ...make(), options)));
  draw().then(() => { document.body.dataset.drawn = "yes"; });
  dark.addEventListener("change", draw);
  let was = narrow();
  window.addEventListener("resize", () => { if (narrow() !== was) { was = narrow(); draw(); } });

  for (const button of document.querySelectorAll("[data-measure]")) {
    button.addEventListener("click", () => {
      measure = button.dataset.measure;
      for (const each of document.querySelectorAll("[data-measure]")) each.setAttribute("aria-pressed", String(each === button));
      Plotly.react("treemap", ...treemap(), options);
    });
  }

  // A table is sorted by the column whose head is pressed: numbers from the largest, texts from A; again turns it round.
  const key = (row, at) => {
    const cell = row.cells[at];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  for (const head of document.querySelectorAll("th")) {
    head.querySelector("button").addEventListener("click", () => {
      const at = head.cellIndex;
      const body = head.closest("table").tBodies[0];
      const rows = [...body.rows];
      const numeric = rows.length > 0 && typeof key(rows[0], at) === "number";
      const was = head.getAttribute("aria-sort");
      const down = was === null ? numeric : was === "ascending";
      for (const each of head.parentNode.cells) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => {
        const [left, right] = [key(a, at), key(b, at)];
        const order = numeric ? left - right : left.localeCompare(right);
        return down ? -order : order;
      });
      body.append(...rows);
    });
  }
})();
