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
    const row = rows.get(part.dataset.t);
    tip.textContent = row.dataset.tip + "\n" + row.querySelector(".why").textContent;
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
    if (event.target.closest && event.target.closest("button, .parallel")) return;
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

  // Which trials are shown: those of causes that are on, within every brush.
  const causes = new Set(), brushes = new Map(), bar = document.getElementById("shown");
  const lines = new Map(); // of the parallel coordinates: by trial, index of an axis -> position
  const parallel = document.querySelector(".parallel");
  const axes = parallel ? parallel.querySelectorAll("path.axis").length : 0;
  if (parallel) {
    const box = parallel.querySelector("svg").viewBox.baseVal;
    for (const line of parallel.querySelectorAll("path[data-t]")) {
      const at = new Map();
      for (const [, x, y] of line.getAttribute("d").matchAll(/[ML](\S+) (\S+?)(?=[ML]|$)/g))
        at.set(Math.round(x / box.width * (axes - 1)), 1 - y / box.height);
      lines.set(line.dataset.t, at);
    }
  }

  function within(trial) {
    for (const [axis, { low, high }] of brushes) {
      const at = lines.get(trial)?.get(axis);
      if (!(low <= at && at <= high)) return false;
    }
    return true;
  }

  function filter() {
    let count = 0;
    for (const [trial, row] of rows) {
      const gone = causes.has(row.dataset.c) || !within(trial);
      for (const part of parts.get(trial)) part.classList.toggle("gone", gone);
      count += !gone;
    }
    bar.hidden = count === rows.size;
    bar.querySelector("span").textContent = count + " of " + rows.size + " trials are shown.";
  }

  const toggles = document.querySelectorAll("[data-cause]");
  for (const button of toggles) {
    button.addEventListener("click", () => {
      const off = button.getAttribute("aria-pressed") === "true";
      button.setAttribute("aria-pressed", String(!off));
      if (off) causes.add(button.dataset.cause); else causes.delete(button.dataset.cause);
      filter();
    });
  }
  bar.querySelector("button").addEventListener("click", () => {
    causes.clear();
    for (const button of toggles) button.setAttribute("aria-pressed", "true");
    for (const { mark } of brushes.values()) mark.remove();
    brushes.clear();
    filter();
  });

  if (parallel) {
    const inner = parallel.querySelector("svg"), box = inner.viewBox.baseVal;
    let drag = null, due = false;
    const soon = () => { // once a frame, however fast the pointer moves
      if (!due) requestAnimationFrame(() => { due = false; filter(); });
      due = true;
    };
    const level = (event) => {
      const frame = parallel.getBoundingClientRect(), top = Number(inner.getAttribute("y") || 0);
      return Math.min(Math.max(1 - (event.clientY - frame.top - top) / box.height, 0), 1);
    };
    const put = (axis, low, high) => {
      brushes.get(axis)?.mark.remove();
      brushes.delete(axis);
      if (high - low > 0.01) {
        const mark = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        const middle = axis / (axes - 1) * box.width;
        for (const [name, value] of Object.entries({ class: "brush", x: middle - 7, width: 14,
          y: (1 - high) * box.height, height: (high - low) * box.height }))
          mark.setAttribute(name, value);
        inner.append(mark);
        brushes.set(axis, { low, high, mark });
      }
      soon();
    };
    parallel.addEventListener("pointerdown", (event) => {
      const frame = parallel.getBoundingClientRect();
      const axis = Math.round((event.clientX - frame.left) / frame.width * (axes - 1));
      drag = { axis, from: level(event) };
      if (event.pointerId) parallel.setPointerCapture(event.pointerId);
    });
    parallel.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const to = level(event);
      put(drag.axis, Math.min(drag.from, to), Math.max(drag.from, to));
    });
    parallel.addEventListener("pointerup", (event) => {
      if (!drag) return;
      const to = level(event);
      put(drag.axis, Math.min(drag.from, to), Math.max(drag.from, to));
      drag = null;
      filter();
    });
  }

  // The rows that are shown, in their order, with numbers in full.
  function csv() {
    const table = document.querySelector(".trials");
    const quoted = (text) => {
      const inert = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? "'" + text : text;
      return /[",\n\r]/.test(inert) ? '"' + inert.replaceAll('"', '""') + '"' : inert;
    };
    const lines = [...table.rows].filter((row) => !row.classList.contains("gone")).map((row) =>
      [...row.cells].map((cell) => quoted(cell.dataset.v ?? cell.textContent)).join(","));
    return lines.join("\r\n") + "\r\n";
  }
  document.getElementById("csv").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = "trials.csv";
    link.click();
  });
})();
