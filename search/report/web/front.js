const finals = new Map(data.front.finals.map(final => [final.key, final]));
const state = {size: "macs", split: "holdout", budget: null, answers: [], all: false, chosen: null, shown: null, at: null};

const onFront = () => [...finals.values()].filter(final => final.kind === "front" && final.sizes[state.size]);
const isBetter = (one, other) => one.score > other.score || (one.score === other.score && one.sizes.macs[1] < other.sizes.macs[1]);

// What `search.pick` answers limits with: the highest holdout score within one, then the least MACs. Each network
// with its share in percent and the shortest limit that is answered with it and not with the next.
function findAnswers() {
  const share = final => 100 * final.sizes[state.size][0], best = [];
  for (const final of onFront().sort((a, b) => share(a) - share(b) || isBetter(b, a) - isBetter(a, b)))
    if (!best.length || isBetter(final, best.at(-1))) best.push(final);
  return best.map((final, i) => {
    const next = i + 1 < best.length ? share(best[i + 1]) : Infinity;
    // A product that is whole on paper must not go up by its rounding.
    const up = digits => Math.ceil(10 ** digits * share(final) * (1 - 4 * Number.EPSILON)) / 10 ** digits;
    let digits = 1;
    while (digits < 9 && up(digits) >= next - 1e-9) digits++;
    return {final, share: share(final), limit: up(digits), text: `${+share(final).toFixed(digits)}%`};
  });
}

const answerTo = budget => state.answers.findLast(answer => answer.share <= budget + 1e-9);
const limitOf = final => state.answers.find(answer => answer.final === final)?.limit ?? null;

function showCard(template, fill = () => {}) {
  const content = template.content.cloneNode(true);
  fill(content);
  const card = by("card");
  card.replaceChildren(content);
  // What stands beside and below stays where it is when a shorter card follows.
  card.style.minHeight = `${card.offsetHeight}px`;
}

// Written here, since a page with a row for each group of each network would be large.
function fillCard(content, final) {
  const {groups, criteria} = data.front, rows = content.querySelector(".widths tbody");
  const several = new Set(final.criteria.filter(number => number !== null)).size > 1;
  groups.forEach(([name, full], i) => {
    const row = by("group").content.cloneNode(true).firstChild, [heading, strip, kept, criterion] = row.children;
    const width = final.widths[i] ?? full, [number, rest] = kept.children;
    heading.textContent = heading.title = name;
    strip.querySelector("i").style.width = `${full ? 100 * width / full : 0}%`;
    number.value = number.textContent = width;
    number.dataset.full = full;
    rest.textContent = ` of ${full}`;
    if (several) criterion.textContent = criteria[final.criteria[i]] ?? "";
    else criterion.remove();
    rows.append(row);
  });
  content.querySelector("code.again").textContent = document.querySelector("#again code").textContent;
}

function showEvaluation([d, i]) {
  const dots = data.front.dots[d];
  const texts = {
    rung: dots.label, id: dots.ids[i], share: percent(dots.macs[i] / data.front.sizes[0].dense), origin: dots.origins[dots.origin[i]],
    score: scoreText(dots.scores[i]), macs: count(dots.macs[i]), params: count(dots.params[i]),
  };
  showCard(by("card-evaluation"), content => {
    for (const slot of content.querySelectorAll("[data-slot]")) slot.textContent = texts[slot.dataset.slot];
  });
  mark(null, {x: 100 * dots[state.size][i] / sizeNow(state).dense, y: plainScore(dots.scores[i])});
  state.shown = dots.ids[i];
  showBudget(state.budget);
}

function mark(key, at) {
  state.chosen = key;
  state.at = at;
  state.shown = finals.get(key)?.id ?? null;
  for (const row of by("finals").querySelectorAll("tr.chosen")) row.classList.remove("chosen");
  for (const button of by("finals").querySelectorAll('[aria-pressed="true"]')) button.setAttribute("aria-pressed", "false");
  if (key === null) return;
  const row = by("finals").querySelector(`tr[data-key="${key}"]`);
  row.classList.add("chosen");
  row.querySelector("button").setAttribute("aria-pressed", "true");
}

function choose(final) {
  if (final === null) {
    mark(null, null);
    return;
  }
  if (state.chosen !== final.key) showCard(by(final.key), content => fillCard(content, final));
  mark(final.key, place(final, state));
}

// The limit may have more digits than the slider has steps for: a network that was chosen by hand has its own.
function showBudget(budget) {
  const slider = by("budget");
  if (!slider) return;
  const size = sizeNow(state);
  state.budget = Math.min(slider.max, Math.max(slider.min, budget));
  slider.value = state.budget;
  by("budget-text").textContent = `${state.budget}%`;
  by("budget-size").textContent = `${size.title}, ${sizeText(state.budget / 100 * size.dense, size)}`;
  slider.setAttribute("aria-valuetext", `${state.budget}% of the dense network's ${size.title}`);
  by("budget-finding").textContent = finding(answerTo(state.budget), size);
}

// Said of what the limit is answered with; what no limit is answered with can be chosen, too.
function finding(answer, size) {
  if (answer) {
    const {final, text} = answer;
    return `${final.id}: ${scoreText(final.score)} ${data.front.metric.title} on holdout, ${text} of dense`
      + (state.shown === null || state.shown === final.id ? "" : `. The card shows ${state.shown} instead.`);
  }
  return state.answers.length
    ? `No network fits; the smallest has ${state.answers[0].text}.` : `No network of the front has a known ${size.title.toLowerCase()}.`;
}

function slideTo(budget) {
  choose(answerTo(budget)?.final ?? null);
  showBudget(budget);
  moveChoice(by("plot"), state);
}

// By keys: whole percents, and every network between them, however near two are.
function slideByKey(event) {
  const way = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[event.key];
  if (!way || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const ahead = state.answers.map(answer => way * answer.limit).filter(limit => limit > way * state.budget);
  slideTo(way * Math.min(Math.floor(way * state.budget) + 1, ...ahead));
  keepInAddress();
}

function fitSlider() {
  state.answers = findAnswers();
  const slider = by("budget");
  if (!slider) return;
  const shares = onFront().map(final => 100 * final.sizes[state.size][0]);
  slider.min = shares.length ? Math.max(0, Math.floor(Math.min(...shares)) - 1) : 0;
  slider.max = Math.max(100, Math.ceil(Math.max(0, ...shares)));
}

// By hand: a mark, a row or a link.
function chooseByHand(key) {
  const final = finals.get(key);
  choose(final);
  showBudget(limitOf(final) ?? state.budget);
  moveChoice(by("plot"), state);
  keepInAddress();
}

function keepInAddress() {
  if (state.chosen !== null) history.replaceState(null, "", `#${encodeURIComponent(finals.get(state.chosen).id)}`);
}

function fromAddress() {
  let id = location.hash.slice(1);
  try { id = decodeURIComponent(id); } catch { /* no id then */ }
  return data.front.finals.find(final => final.id === id) ?? null;
}

function note() {
  const plot = by("plot"), low = plot.layout.yaxis.range[0];
  const below = plot.data.filter(found => found.meta.startsWith("rung")).flatMap(found => found.y).filter(y => y < low).length;
  const missing = [...finals.values()].filter(final => !place(final, state)).length;
  by("plot-note").textContent = "Up and to the left is better. Bars: one standard deviation over training seeds. The stepped line is the best that a size buys."
    + (state.split === "test" ? " The front was chosen on holdout, and so does the slider; test chooses nothing." : "")
    + (below ? ` Below the axis: ${below} evaluation${below === 1 ? "" : "s"}.` : "")
    + (missing ? ` Not known here: ${missing} network${missing === 1 ? "" : "s"}.` : "");
  by("reach").hidden = !below && !state.all;
}

async function redraw() {
  const final = finals.get(state.chosen);
  state.at = final ? place(final, state) : null;
  await paint(by("plot"));
  moveChoice(by("plot"), state);
  by("unzoom").hidden = true;
  note();
}

function changeAxes() {
  state.size = by("size").value;
  state.split = by("split").value;
  fitSlider();
  showBudget(limitOf(finals.get(state.chosen)) ?? state.budget);
  redraw();
}

async function startFront() {
  const plot = by("plot");
  makers.set(plot, (colors, width) => frontFigure(state, colors, width));
  by("controls").hidden = false;
  by("split").querySelector('[value="test"]').disabled = !data.front.finals.some(final => final.test[0] !== null);
  fitSlider();
  const first = fromAddress() ?? (data.front.chosen === null ? null : data.front.finals[data.front.chosen]);
  if (first) choose(first);
  showBudget(limitOf(first) ?? Number(by("budget")?.value));
  await redraw();
  repaints.push(redraw);
  plot.on("plotly_relayout", change => {
    if (Object.keys(change).some(key => key.startsWith("xaxis.range"))) by("unzoom").hidden = false;
  });
  by("unzoom").addEventListener("click", redraw);
  plot.on("plotly_afterplot", () => moveChoice(plot, state));
  plot.on("plotly_click", event => {
    const chosen = event.points[0]?.customdata;
    if (typeof chosen === "string") chooseByHand(chosen);
    else if (chosen) {
      showEvaluation(chosen);
      moveChoice(plot, state);
    }
  });
  by("size").addEventListener("change", changeAxes);
  by("split").addEventListener("change", changeAxes);
  by("budget")?.addEventListener("input", event => slideTo(Number(event.target.value)));
  by("budget")?.addEventListener("keydown", slideByKey);
  by("budget")?.addEventListener("change", keepInAddress);
  by("reach").addEventListener("click", () => {
    state.all = !state.all;
    by("reach").setAttribute("aria-pressed", String(state.all));
    redraw();
  });
  by("finals").addEventListener("click", event => {
    const row = event.target.closest("tr[data-key]");
    if (row) chooseByHand(row.dataset.key);
  });
  addEventListener("resize", () => { by("card").style.minHeight = ""; });
  addEventListener("hashchange", () => {
    const final = fromAddress();
    if (final) chooseByHand(final.key);
  });
  root.dataset.ready = "true";
}
