const THEMES = ["system", "light", "dark"];
const repaints = [];

// A page from a file may not be allowed to keep anything.
function stored(value) {
  try {
    if (value === undefined) return localStorage.getItem("espalier-theme");
    localStorage.setItem("espalier-theme", value);
  } catch { /* the theme is forgotten, nothing else */ }
  return null;
}

function setTheme(name) {
  if (name === "system") delete root.dataset.theme;
  else root.dataset.theme = name;
  by("theme").textContent = `Theme: ${name}`;
  by("theme").dataset.now = name;
  stored(name);
  for (const repaint of repaints) repaint();
}

function startTheme() {
  const button = by("theme");
  button.hidden = false;
  button.addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(button.dataset.now) + 1) % THEMES.length]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => repaints.forEach(repaint => repaint()));
  const before = stored();
  setTheme(THEMES.includes(before) ? before : "system");
}

// Colours stand in the style sheet alone; a probe says what they are, in the scheme that is asked for.
function palette(scheme) {
  const probe = document.createElement("span");
  probe.hidden = true;
  if (scheme) probe.style.colorScheme = scheme;
  document.body.append(probe);
  const cache = {};
  const color = name => {
    if (!(name in cache)) {
      probe.style.color = `var(--${name})`;
      cache[name] = getComputedStyle(probe).color;
    }
    return cache[name];
  };
  const names = ["paper", "card", "ink", "faint", "line", "grid", ...Object.keys(LOOKS)];
  const colors = Object.fromEntries(names.map(name => [name, color(name)]));
  probe.remove();
  return colors;
}
