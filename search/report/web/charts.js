// How each role is drawn; shapes differ, so that colour is never the only difference.
const LOOKS = {
  "front": {symbol: "circle", size: 11},
  "dominated": {symbol: "circle-open", size: 9},
  "uniform": {symbol: "square-open", size: 9},
  "random": {symbol: "diamond-open", size: 10},
  "dense": {symbol: "star", size: 15},
  "peer": {symbol: "x", size: 9},
  "rung-1": {symbol: "circle", size: 5},
  "rung-2": {symbol: "triangle-up", size: 7},
  "rung-3": {symbol: "triangle-down", size: 7},
  "first": {symbol: "circle", size: 7},
  "second": {symbol: "square", size: 7, dash: "dash"},
  "third": {symbol: "diamond", size: 8, dash: "dot"},
};
const FONT = "system-ui, sans-serif", MARGIN = {l: 52, r: 14, t: 12, b: 44};
const CONFIG = {responsive: true, displayModeBar: false};
const makers = new Map();

// Faded by their colour: an opacity of its own for each of thousands of marks is slow.
function trace(role, colors, {scale = 1, faded = false, ...rest}) {
  const look = LOOKS[role], color = faded ? colors[role].replace("rgb(", "rgba(").replace(")", ", 0.55)") : colors[role];
  const own = {type: "scatter", hoverinfo: "text", meta: role, ...rest};
  if (own.type === "bar") own.marker = {color};
  else if (own.mode === "lines") own.line = {color, width: 2, dash: look.dash, ...rest.line};
  else own.marker = {color, symbol: look.symbol, size: scale * look.size, ...(look.symbol.endsWith("-open") ? {line: {width: 2}} : {})};
  for (const bars of ["error_x", "error_y"]) if (own[bars]) Object.assign(own[bars], {color, width: 0, thickness: 1.3});
  return own;
}

function layout(colors, rest) {
  const axis = {gridcolor: colors.grid, linecolor: colors.line, zeroline: false, automargin: true, exponentformat: "power", minexponent: 4};
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: {family: FONT, size: TEXT_SIZE, color: colors.ink},
    hoverlabel: {bgcolor: colors.card, bordercolor: colors.line, font: {color: colors.ink}, align: "left"},
    hovermode: "closest",
    // Where fingers point, dragging scrolls the page.
    dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false,
    margin: MARGIN,
    legend: {orientation: "h", y: -0.18, yanchor: "top", itemclick: "toggle"},
    ...rest,
    xaxis: {...axis, ...rest.xaxis},
    yaxis: {...axis, ...rest.yaxis},
  };
}

const TEXT_SIZE = 13, TITLE_SIZE = 16, pen = document.createElement("canvas").getContext("2d");
function widthOf(text, size) {
  pen.font = `${size}px ${FONT}`;
  return pen.measureText(text).width;
}

// A title along the bottom in as many lines as it needs; plotly would let a longer one run out of the window.
function titleLines(text, width, left = MARGIN.l) {
  const lines = [];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`;
    if (lines.length && widthOf(longer, TITLE_SIZE) <= width - left - MARGIN.r) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

const bottomTitle = lines => ({text: lines.map(escaped).join("<br>"), font: {size: TITLE_SIZE}});

function shortNames(axis, width) {
  const most = width < 500 ? 18 : 40;
  return axis.categories.map(name => name.length > most ? `${name.slice(0, most - 1)}…` : name);
}

function axisOf(axis, title, vertical, width) {
  if (!axis.categories.length) return {title, type: axis.log ? "log" : "linear"};
  const last = axis.categories.length - 0.5;
  return {
    title, tickvals: axis.categories.map((_, i) => i), ticktext: shortNames(axis, width).map(escaped),
    range: vertical ? [last, -0.5] : [-0.5, last], showgrid: false,
  };
}

function seriesTrace(series, chart, colors) {
  const text = series.hover.length
    ? series.hover.map(lines => escaped(lines).replace(/\n/g, "<br>"))
    : series.x.map((x, i) => {
      const named = (value, axis) => axis.categories.length ? axis.categories[value] ?? "" : minus(`${+(value ?? NaN).toPrecision(4)}`);
      return escaped(`${series.label}: ${named(x, chart.x)}, ${named(series.y[i], chart.y)}`);
    });
  const rest = {name: escaped(series.label), x: series.x, y: series.y, hovertext: text, showlegend: chart.series.length > 1};
  if (series.error.length) rest[chart.y.categories.length ? "error_x" : "error_y"] = {array: series.error};
  if (series.kind === "bars") return trace(series.role, colors, {...rest, type: "bar", orientation: "h"});
  if (series.kind === "points") return trace(series.role, colors, {...rest, mode: "markers"});
  const shape = series.kind === "steps" ? "hv" : "linear";
  return trace(series.role, colors, {...rest, mode: "lines", line: {shape}});
}

function chartFigure(chart, colors, width) {
  const rows = Math.max(chart.y.categories.length, 0);
  const named = chart.series.length > 1;
  // Names of categories, with the title beside them, push the plot to the right.
  const names = shortNames(chart.y, width).map(name => widthOf(name, TEXT_SIZE) + 2 * TITLE_SIZE);
  const across = titleLines(chart.x.title, width, Math.max(MARGIN.l, ...names));
  return {
    data: chart.series.map(series => seriesTrace(series, chart, colors)),
    layout: layout(colors, {
      height: rows ? Math.max(160, 84 + 24 * rows + (named ? 30 : 0)) : 340,
      xaxis: axisOf(chart.x, {...bottomTitle(across), standoff: 8}, false, width),
      yaxis: axisOf(chart.y, {text: escaped(chart.y.title), standoff: 8}, true, width),
      barmode: "group",
      ...(rows ? {legend: {orientation: "h", y: 1, yanchor: "bottom"}} : {}),
    }),
  };
}

function paint(element) {
  const figure = makers.get(element)(palette(), element.clientWidth);
  // In the front two clicks choose two points, even quick ones.
  return Plotly.react(element, figure.data, figure.layout, {...CONFIG, doubleClick: element.dataset.chart ? "reset+autosize" : false});
}

function savePicture(element, format) {
  const width = 960, colors = palette("light");
  const {data: traces, layout: place} = makers.get(element)(colors, width);
  const title = element.dataset.chart ? data.charts.find(chart => chart.name === element.dataset.chart).title : "The front";
  Object.assign(place, {paper_bgcolor: "white", plot_bgcolor: "white", title: {text: escaped(title)}, margin: {...place.margin, t: 56}});
  const height = Math.max(540, place.height + 60);
  delete place.height;
  return Plotly.downloadImage({data: traces, layout: place}, {format, width, height, scale: 2, filename: fileName(element.dataset.chart ?? "front")});
}

// Charts are drawn when they come near the window.
function startCharts() {
  const watch = new IntersectionObserver(entries => {
    for (const {isIntersecting, target} of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      paint(target);
      repaints.push(() => paint(target));
    }
  }, {rootMargin: "500px"});
  for (const element of document.querySelectorAll("[data-chart]")) {
    const chart = data.charts.find(found => found.name === element.dataset.chart);
    makers.set(element, (colors, width) => chartFigure(chart, colors, width));
    watch.observe(element);
  }
  addEventListener("beforeprint", () => makers.forEach((_, element) => paint(element)));
}
