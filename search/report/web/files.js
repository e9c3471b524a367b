function save(name, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A text that starts like a formula would be one to a spreadsheet.
function csvCell(value) {
  if (value === null) return "";
  if (typeof value !== "string") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

const csv = table => [table.columns, ...table.rows].map(row => `${row.map(csvCell).join(",")}\n`).join("");
const fileName = name => name.replace(/[^\w.-]+/g, "-").slice(0, 80) || "espalier";

async function copy(button) {
  const code = button.closest(".command").querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    getSelection().selectAllChildren(code);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

function startFiles() {
  for (const element of document.querySelectorAll(".tools, .copy")) element.hidden = false;
  document.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.matches(".copy")) copy(button);
    if (button.dataset.picture) savePicture(by(button.dataset.of), button.dataset.picture);
    if (button.dataset.csv !== undefined) {
      const table = data.tables.find(found => found.name === button.dataset.csv);
      save(`${fileName(table.name)}.csv`, csv(table), "text/csv");
    }
  });
}
