// The plot of the front for a size, a split and a budget; places are shares of the dense network's size.
const KIND_LABELS = {front: "front", dominated: "dominated", uniform: "uniform control", random: "random control"};

function place(final, state) {
  const size = final.sizes[state.size], score = final[state.split];
  return size && score[0] !== null ? {x: 100 * size[0], y: plainScore(score[0]), sd: plainScore(score[1] ?? 0)} : null;
}

const sizeNow = state => data.front.sizes.find(size => size.key === state.size);
const sizeText = (number, size) => size.unit === "ms" ? `${+number.toPrecision(3)} ms` : `${count(number)}${size.unit}`;

function finalHover(final, state) {
  const size = sizeNow(state), [share, number] = final.sizes[state.size], [mean, sd, n] = final[state.split];
  const spread = sd === null ? "" : ` ± ${data.front.metric.fraction ? (100 * sd).toFixed(2) : +sd.toPrecision(2)}, n = ${n}`;
  return escaped(`${final.id}, ${KIND_LABELS[final.kind]}`) + `<br>${scoreText(mean)}${spread} on ${state.split}`
    + `<br>${sizeText(number, size)} ${size.unit === "ms" ? "" : escaped(size.title)}, ${percent(share)} of dense`
    + `<br>${escaped(final.method)}<br>${escaped(final.origin)}`;
}

function dotTraces(state, colors) {
  const size = sizeNow(state);
  if (state.split !== "holdout" || !["macs", "params"].includes(state.size)) return [];
  return data.front.dots.map((dots, d) => {
    const numbers = dots[state.size];
    return trace(LOOKS[`rung-${dots.rung}`] ? `rung-${dots.rung}` : "rung-3", colors, {
      name: escaped(dots.label), faded: dots.ids.length > 1000, scale: dots.ids.length > 1000 ? 0.7 : 1, mode: "markers", x: numbers.map(number => 100 * number / size.dense), y: dots.scores.map(plainScore),
      customdata: dots.ids.map((_, i) => [d, i]),
      hovertext: dots.ids.map((id, i) => `${escaped(id)}<br>${scoreText(dots.scores[i])} on holdout<br>${sizeText(numbers[i], size)} `
        + `${escaped(size.title)}, ${percent(numbers[i] / size.dense)} of dense<br>${escaped(dots.origins[dots.origin[i]])}`),
    });
  });
}

function kindTrace(kind, state, colors) {
  const shown = data.front.finals.filter(final => final.kind === kind && place(final, state));
  const places = shown.map(final => place(final, state));
  if (!shown.length) return [];
  return [trace(kind, colors, {
    name: KIND_LABELS[kind], mode: "markers", x: places.map(at => at.x), y: places.map(at => at.y),
    error_y: {array: places.map(at => at.sd)}, scale: shown.length > 40 ? 0.65 : 1,
    customdata: shown.map(final => final.key), hovertext: shown.map(final => finalHover(final, state)),
  })];
}

function stairs(state, colors, end) {
  const at = data.front.finals.filter(final => final.kind === "front").map(final => place(final, state)).filter(Boolean);
  const x = [], y = [];
  for (const {x: left, y: up} of at.sort((a, b) => a.x - b.x || b.y - a.y)) {
    if (y.length && up <= y.at(-1)) continue;
    x.push(left);
    y.push(up);
  }
  if (!x.length) return [];
  const line = {mode: "lines", showlegend: false, hoverinfo: "skip"};
  const treads = {x: [], y: []};
  x.forEach((left, i) => { treads.x.push(left, x[i + 1] ?? end, null); treads.y.push(y[i], y[i], null); });
  return [
    trace("front", colors, {...line, x: [...x, end], y: [...y, y.at(-1)], opacity: 0.4, line: {shape: "hv", width: 1}}),
    trace("front", colors, {...line, ...treads, line: {width: 2.5}}),
  ];
}

function peerTrace(state, colors) {
  const peers = data.front.peers.filter(peer => peer.split === state.split && state.size in peer.sizes);
  const size = sizeNow(state);
  if (!peers.length) return [];
  return [trace("peer", colors, {
    name: "peers", mode: "markers", x: peers.map(peer => 100 * peer.sizes[state.size] / size.dense), y: peers.map(peer => plainScore(peer.score)),
    hovertext: peers.map(peer => `${escaped(peer.name)}<br>${scoreText(peer.score)} on ${peer.split}<br>${sizeText(peer.sizes[state.size], size)} `
      + `${escaped(size.title)}<br>${escaped(peer.source)}`),
  })];
}

// Finals with their deviations, peers and the dense network fit; cheaper evaluations may lie below.
function scoreRange(state, traces) {
  const ends = [plainScore(data.front.dense[state.split])];
  const main = traces.filter(found => found.error_y || found.meta === "peer");
  for (const found of main.length && !state.all ? main : traces) {
    if (found.mode !== "markers") continue;
    found.y.forEach((y, i) => ends.push(y - (found.error_y?.array[i] ?? 0), y + (found.error_y?.array[i] ?? 0)));
  }
  const low = ends.reduce((a, b) => Math.min(a, b)), high = ends.reduce((a, b) => Math.max(a, b));
  const pad = 0.1 * (high - low) || 0.01 * Math.abs(high) || 1;
  return [low - pad, Math.min(high + 1.4 * pad, data.front.metric.fraction ? 100 + 0.5 * pad : Infinity)];
}

function sizeEnd(traces) {
  const most = traces.flatMap(found => found.x).reduce((a, b) => Math.max(a, b ?? 0), 100);
  return Math.ceil(1.04 * most);
}

function frontFigure(state, colors, width) {
  const size = sizeNow(state), score = `${data.front.metric.axis} on ${state.split}`;
  const title = titleLines(`${size.title}, % of the dense network's ${size.text}`, width);
  const marks = [...dotTraces(state, colors), ...["random", "uniform", "dominated", "front"].flatMap(kind => kindTrace(kind, state, colors)),
    ...peerTrace(state, colors)];
  const dense = trace("dense", colors, {
    name: "dense", mode: "markers", x: [100], y: [plainScore(data.front.dense[state.split])],
    hovertext: [`dense<br>${scoreText(data.front.dense[state.split])} on ${state.split}<br>${size.text} ${size.unit === "ms" ? "" : escaped(size.title)}`],
  });
  const end = sizeEnd([...marks, dense]);
  const traces = [...stairs(state, colors, end), ...marks, dense];
  return {
    data: traces,
    layout: layout(colors, {
      height: width < 500 ? 460 : 480,
      xaxis: {title: {...bottomTitle(title), standoff: 10}, range: [0, end]},
      yaxis: {title: {text: escaped(score)}, range: scoreRange(state, [...marks, dense])},
      legend: {orientation: "h", y: (width < 500 ? -0.19 : -0.11) - 0.06 * title.length, yanchor: "top", traceorder: "reversed"},
    }),
  };
}

// What the choice changes lies over the plot: plotly would draw thousands of marks anew to move one line.
function moveChoice(element, state) {
  const {xaxis, yaxis} = element._fullLayout, over = by("choice");
  Object.assign(over.style, {left: `${xaxis._offset}px`, top: `${yaxis._offset}px`, width: `${xaxis._length}px`, height: `${yaxis._length}px`});
  const [line, ring] = over.children;
  line.hidden = state.budget === null;
  if (state.budget !== null) line.style.transform = `translateX(${xaxis.d2p(state.budget)}px)`;
  ring.hidden = state.at === null;
  if (state.at !== null) ring.style.transform = `translate(${xaxis.d2p(state.at.x)}px, ${yaxis.d2p(state.at.y)}px)`;
}
