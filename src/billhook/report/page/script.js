// Draws the plots in the colours of the page, redraws them when the page turns light or dark, filters the groups.
(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const variable = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // Figures name their colours "var(--name)"; SVG attributes need the value.
  const coloured = (value, key) => {
    if (Array.isArray(value)) return value.map((v) => coloured(v, key));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, k)]));
    const name = key === "color" && typeof value === "string" && /^var\((--[\w-]+)\)$/.exec(value);
    return name ? variable(name[1]) : value;
  };

  const theme = () => {
    const axis = { gridcolor: variable("--line"), linecolor: variable("--line"), zerolinecolor: variable("--line") };
    return {
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: variable("--text") },
        hoverlabel: { bgcolor: variable("--raised"), bordercolor: variable("--line"), font: { color: variable("--text") } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: variable("--muted"), activecolor: variable("--accent") },
        xaxis: axis,
        yaxis: axis,
      },
    };
  };

  // Labels of two lines would overlap on a narrow screen.
  const firstLine = (text) => text.split("<br>")[0];

  const drawn = new Set();
  const draw = (element) => {
    const { data, layout, config } = coloured(figures[element.dataset.figure]);
    if (element.clientWidth < 560)
      data.forEach((trace) => Object.assign(trace, { text: trace.text?.map(firstLine), textfont: { size: 11 } }));
    const buttons = { responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtons: [["toImage", "resetScale2d"]] };
    drawn.add(element);
    return Plotly.newPlot(element, data, { ...layout, template: theme() }, { ...buttons, ...config });
  };

  // A plot in a closed section has no width yet, so it waits until the section is opened.
  const plots = [...document.querySelectorAll("[data-figure]")];
  const drawVisible = () =>
    Promise.all(plots.filter((p) => !p.closest("details:not([open])") && !drawn.has(p)).map(draw));
  const redraw = () => {
    drawn.clear();
    return drawVisible();
  };
  document.addEventListener("toggle", drawVisible, true);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  // On paper: light colours, everything unfolded.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details.run:not([open])")];
    closed.forEach((d) => (d.open = true));
    root.classList.add("paper");
    redraw();
  });
  addEventListener("afterprint", () => {
    closed.forEach((d) => (d.open = false));
    root.classList.remove("paper");
    redraw();
  });

  document.querySelectorAll("[data-filter]").forEach((filter) => {
    const rows = [...document.getElementById(filter.dataset.filter).tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const [search, state, output] = ["input", "select", "output"].map((tag) => filter.querySelector(tag));
    const apply = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach((row, i) => {
        row.hidden = !words.every((w) => texts[i].includes(w)) || (state.value && row.dataset.state !== state.value);
      });
      output.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
    };
    search.addEventListener("input", apply);
    state.addEventListener("change", apply);
    apply();
  });

  drawVisible().then(() => (root.dataset.drawn = drawn.size));
})();
