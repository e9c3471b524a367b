const root = document.documentElement;
const by = id => document.getElementById(id);
const data = JSON.parse(by("data").textContent);

// Plotly reads a small HTML in its texts.
const escaped = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const PREFIXES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
function count(number) {
  for (const [size, prefix] of PREFIXES) if (number >= size) return `${+(number / size).toPrecision(3)} ${prefix}`;
  return `${+number.toPrecision(3)} `;
}
const percent = share => `${100 * share >= 9.95 ? (100 * share).toFixed(0) : (100 * share).toFixed(1)}%`;
// The minus that people read; machines read the hyphen.
const minus = text => text.replaceAll("-", "\u2212");
const scoreText = score => minus(data.front.metric.fraction ? `${(100 * score).toFixed(2)}%` : `${+score.toPrecision(4)}`);
const plainScore = score => score === null ? null : data.front.metric.fraction ? 100 * score : score;
