"use strict";
// Draws the charts from the JSON in the page. Colours are CSS variables, resolved here, so that a change between light and
// dark only draws again.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const resolve = (value) => {
    if (typeof value === "string") {
      const found = /^var\((--[\w-]+)\)$/.exec(value);
      return found ? css(found[1]) : value;
    }
    if (Array.isArray(value)) return value.map(resolve);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, resolve(inner)]));
    }
    return value;
  };
  const axis = { gridcolor: "var(--line)", linecolor: "var(--line)", zeroline: false, fixedrange: true, ticks: "" };
  const common = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 13, color: "var(--ink)" },
    margin: { l: 62, r: 14, t: 14, b: 52 },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: 12 } },
    hoverlabel: { bgcolor: "var(--surface)", bordercolor: "var(--line)", font: { color: "var(--ink)" } },
    hovermode: "closest",
    dragmode: false,
  };
  // On paper a chart is drawn this wide, whatever the screen is, and scaled to its column: 13 px become about 8 pt.
  const PAPER_WIDTH = 420;
  const onPaper = () => document.documentElement.hasAttribute("data-print");
  // Lets style.css scale a chart as a whole, which paper needs: its width is not known when charts are drawn for it.
  const fit = (plot) => {
    const { width, height } = plot._fullLayout;
    plot.style.setProperty("--shape", `${width} / ${height}`);
    for (const svg of plot.querySelectorAll(".main-svg")) svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  };
  const draw = () =>
    Promise.all(
      figures.map((figure) => {
        const layout = { ...common, ...figure.layout };
        if (onPaper()) Object.assign(layout, { width: PAPER_WIDTH, height: figure.paper_height ?? layout.height });
        for (const name of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))])) {
          layout[name] = { ...axis, ...layout[name] };
        }
        const config = { responsive: !onPaper(), displayModeBar: false, displaylogo: false };
        const drawn = Plotly.react(figure.id, resolve(structuredClone(figure.data)), resolve(layout), config);
        fit(document.getElementById(figure.id)); // at once: a browser that prints waits for no promise
        return drawn;
      }),
    );
  const ready = draw().then(() => {
    for (const plot of document.querySelectorAll(".plot")) plot.on("plotly_afterplot", () => fit(plot));
    document.documentElement.setAttribute("data-drawn", "yes");
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => ready.then(draw));
  // Paper is light, narrower than a screen, and has nothing to click on.
  let closed = [];
  const toPaper = () => {
    if (onPaper()) return;
    document.documentElement.setAttribute("data-print", "");
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const item of closed) item.open = true;
    draw();
  };
  const toScreen = () => {
    if (!onPaper()) return;
    document.documentElement.removeAttribute("data-print");
    for (const item of closed) item.open = false;
    draw();
  };
  addEventListener("beforeprint", toPaper);
  addEventListener("afterprint", toScreen);
  matchMedia("print").addEventListener("change", (event) => (event.matches ? toPaper() : toScreen()));
})();
