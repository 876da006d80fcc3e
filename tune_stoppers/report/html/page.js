"use strict";
(() => {
  const tip = document.getElementById("tip");
  const rows = new Map(), parts = new Map();
  for (const part of document.querySelectorAll("[data-t]")) {
    const trial = part.dataset.t;
    if (!parts.has(trial)) parts.set(trial, []);
    parts.get(trial).push(part);
    if (part.tagName === "TR") rows.set(trial, part);
  }
  const close = [[0, 0], [0, 4], [0, -4], [4, 0], [-4, 0]]; // lines are thin
  let shown = null, pinned = null;

  function show(trial) {
    if (trial === shown) return;
    for (const part of parts.get(shown) || []) part.classList.remove("on");
    for (const part of parts.get(trial) || []) part.classList.add("on");
    document.body.classList.toggle("picked", trial !== null);
    shown = trial;
  }

  function under(event) {
    for (const [dx, dy] of close) {
      const found = document.elementFromPoint(event.clientX + dx, event.clientY + dy);
      const part = found && found.closest("[data-t]");
      if (part) return part;
    }
    return null;
  }

  function explain(part, event) {
    tip.hidden = !part || part.tagName === "TR";
    if (tip.hidden) return;
    tip.textContent = rows.get(part.dataset.t).dataset.tip;
    const left = event.clientX + 14, top = event.clientY + 14;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = Math.max(4, Math.min(left, innerWidth - width - 4)) + "px";
    tip.style.top = (top + height > innerHeight ? event.clientY - height - 10 : top) + "px";
  }

  function look(event) {
    const part = under(event);
    show(part ? part.dataset.t : pinned);
    explain(part, event);
  }

  let waiting = false;
  addEventListener("pointermove", (event) => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; look(event); });
  });
  addEventListener("click", (event) => {
    const part = under(event);
    pinned = part && part.dataset.t !== pinned ? part.dataset.t : null;
    look(event);
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    pinned = null; tip.hidden = true; show(null);
  });

  function order(header) {
    const table = header.closest("table"), body = table.tBodies[0], place = header.cellIndex;
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[place], text = cell.dataset.v ?? cell.textContent;
      return { row, text, number: text === "" ? NaN : Number(text) };
    });
    const numbers = keyed.every(({ text, number }) => text === "" || !Number.isNaN(number));
    keyed.sort((a, b) => {
      if ((a.text === "") !== (b.text === "")) return a.text === "" ? 1 : -1; // unknown: last
      const sign = down ? -1 : 1;
      return sign * (numbers ? a.number - b.number : a.text.localeCompare(b.text)) || 0;
    });
    body.append(...keyed.map(({ row }) => row));
  }
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => order(button.closest("th")));
  }
})();
