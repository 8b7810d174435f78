// What pages do beyond links and forms: progress as it happens, and marks by button or by key.
"use strict";

const root = document.documentElement.dataset.root;
const main = document.getElementById("main");

// Progress. Browsers open few connections to one host, so only the newest jobs are followed.
const MOST_FOLLOWED = 3;

function follow(state) {
  const words = state.querySelector(".words");
  const bar = state.querySelector("progress");
  const events = new EventSource(`${root}/jobs/${state.dataset.follow}/events`);
  events.addEventListener("progress", (event) => {
    const job = JSON.parse(event.data);
    words.textContent = job.phase ? `${job.status}: ${job.phase}` : job.status;
    if (job.progress && job.progress.total) {
      bar.max = job.progress.total;
      bar.value = job.progress.done;
    } else {
      bar.removeAttribute("value");
    }
  });
  events.addEventListener("end", () => {
    events.close();
    location.reload();
  });
}

[...document.querySelectorAll("[data-follow]")].slice(0, MOST_FOLLOWED).forEach(follow);

// Marks.
const KEYS = { k: "keep", d: "drop", r: "relabel" };
const dialog = document.getElementById("relabel");
const said = document.getElementById("said");

function say(text) {
  said.textContent = text;
}

function show(card, mark) {
  for (const button of card.querySelectorAll("[data-mark]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mark === mark));
  }
}

function betterCaption(card) {
  const text = document.getElementById("relabel-caption");
  text.value = card.dataset.caption;
  const before = document.activeElement;
  dialog.returnValue = "";
  dialog.showModal();
  text.select();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        before.focus();
        resolve(dialog.returnValue === "save" ? text.value.trim() : null);
      },
      { once: true },
    );
  });
}

async function mark(card, verdict) {
  const sample = "sample" in main.dataset;
  const url = `${root}/jobs/${main.dataset.job}/marks/${encodeURIComponent(card.dataset.key)}`;
  const pressed = card.querySelector(`[data-mark="${verdict}"]`).getAttribute("aria-pressed") === "true";
  let answer;
  try {
    if (pressed && verdict !== "relabel") {
      answer = await fetch(`${url}?sample=${sample}`, { method: "DELETE" });
      verdict = null;
    } else {
      const body = { mark: verdict, sample };
      if (verdict === "relabel") {
        const caption = await betterCaption(card);
        if (!caption) return;
        body.caption = caption;
      }
      answer = await fetch(url, {
        method: "PUT",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
    }
  } catch {
    say("The service cannot be reached: nothing was saved.");
    return;
  }
  if (answer.ok) {
    show(card, verdict);
    say(`${card.dataset.about}: ${verdict ?? "no mark"}`);
  } else {
    const problem = await answer.json().catch(() => ({}));
    say(`Not saved: ${problem.detail ?? answer.status}`);
  }
}

function move(card, steps) {
  const cards = [...document.querySelectorAll(".cards > .card")];
  const next = cards[cards.indexOf(card) + steps];
  if (next) {
    next.querySelector(".open").focus();
    next.scrollIntoView({ block: "nearest" });
  }
}

function inARow() {
  const columns = getComputedStyle(document.querySelector(".cards")).gridTemplateColumns;
  return columns.split(" ").length;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-mark]");
  if (button) mark(button.closest("[data-key]"), button.dataset.mark);
});

// Letters work where a pair has the focus, and nowhere else, so that none is lost that was meant for something else.
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, select")) return;
  const card = event.target.closest(".card");
  if (!card) return;
  if (event.key in KEYS && "key" in card.dataset) {
    mark(card, KEYS[event.key]);
  } else if ("focus" in card.dataset) {
    const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
    if (rel) document.querySelector(`.paging a[rel="${rel}"]`)?.click();
    return;
  } else {
    const steps = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: inARow, ArrowUp: () => -inARow() }[event.key];
    if (!steps) return;
    move(card, steps());
  }
  event.preventDefault();
});

document.querySelector("[data-focus]")?.focus({ preventScroll: true });

// A new job: what `POST /jobs` takes, in JSON, or as a form where a file comes with it.
const form = document.getElementById("new-job");

function specification(fields) {
  const spec = { task: fields.get("task"), flag: { false_discovery_rate: Number(fields.get("rate")) } };
  const text = (name) => fields.get(name).trim();
  if (text("name")) spec.name = text("name");
  if (text("architecture")) spec.model = { architecture: text("architecture"), pretrained: text("pretrained") || null };
  if (text("dataset")) spec.dataset = text("dataset");
  if (text("validation")) {
    const [chosen] = form.elements.validation.selectedOptions;
    spec.validation = { ["marks" in chosen.dataset ? "marks" : "dataset"]: text("validation") };
  }
  return spec;
}

function send(path, body, idempotencyKey) {
  const bar = document.getElementById("sent");
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of how much was sent
    request.open("POST", root + path);
    request.setRequestHeader("Idempotency-Key", idempotencyKey);
    if (typeof body === "string") {
      request.setRequestHeader("Content-Type", "application/json");
    } else {
      bar.hidden = false;
      request.upload.addEventListener("progress", (event) => {
        if (event.lengthComputable) bar.value = event.loaded / event.total;
      });
    }
    request.addEventListener("load", () => {
      const answer = JSON.parse(request.responseText || "{}");
      if (request.status < 300) resolve(answer);
      else reject(new Error(answer.detail ?? `the service answered ${request.status}`));
    });
    request.addEventListener("error", () => reject(new Error("the service cannot be reached")));
    request.send(body);
  });
}

async function uploaded(file, idempotencyKey) {
  say(`Sending ${file.name}`);
  const body = new FormData();
  body.append("file", file);
  return (await send("/datasets", body, idempotencyKey)).id;
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  const fields = new FormData(form);
  const spec = specification(fields);
  // The same for the same form, so that a second try after a broken connection makes nothing twice.
  form.dataset.attempt ??= [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16)).join("");
  const attempt = form.dataset.attempt;
  button.disabled = true;
  try {
    for (const name of ["dataset", "validation"]) {
      const file = fields.get(`${name}_file`);
      if (!file.name || !file.size) continue;
      const id = await uploaded(file, `${attempt}-${name}`);
      if (name === "dataset") spec.dataset = id;
      else spec.validation = { dataset: id };
    }
    if (!spec.dataset) throw new Error("choose a dataset or a file");
    say("Starting the job");
    const job = await send("/jobs", JSON.stringify(spec), `${attempt}-job`);
    location.assign(`${root}/jobs/${job.id}/explore`);
  } catch (error) {
    say(error.message);
    button.disabled = false;
  }
});

form?.addEventListener("change", () => delete form.dataset.attempt);

// The map: points on a canvas, chosen with a line round them, or with a circle by keyboard.
const canvas = document.getElementById("map");
const MOST_CHOSEN = 500; // as many ranks as an address may name

function mixed(from, to, share) {
  const parts = (color) => color.match(/\w\w/g).map((pair) => parseInt(pair, 16));
  const [a, b] = [parts(from), parts(to)];
  return `rgb(${a.map((value, n) => Math.round(value + (b[n] - value) * share)).join(" ")})`;
}

function within(polygon, x, y) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i, i += 1) {
    const [xi, yi] = polygon[i];
    const [xj, yj] = polygon[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

function drawnMap(map) {
  const context = canvas.getContext("2d");
  const sorted = [...map.suspicion].sort((a, b) => a - b);
  const [low, high] = [0.05, 0.95].map((share) => sorted[Math.floor(share * (sorted.length - 1))]);
  const shades = map.suspicion.map((value) => Math.round(8 * Math.min(Math.max((value - low) / (high - low || 1), 0), 1)));
  const order = shades.map((_, n) => n).sort((a, b) => shades[a] - shades[b]); // the most suspicious on top
  const circle = { x: 0, y: 0, radius: 40 };
  let chosen = new Set();
  let line = [];
  let byKey = false;

  const place = (n) => {
    const { width, height } = canvas.getBoundingClientRect();
    return [((map.x[n] + 1.06) / 2.12) * width, ((1.06 - map.y[n]) / 2.12) * height];
  };

  function draw() {
    const { width, height } = canvas.getBoundingClientRect();
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const palette = Array.from({ length: 9 }, (_, n) => mixed(color("--bar"), color("--mark"), n / 8));
    canvas.width = width * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    context.scale(devicePixelRatio, devicePixelRatio);
    const size = Math.max(1.5, Math.min(5, 160 / Math.sqrt(order.length)));
    for (const n of order) {
      const [x, y] = place(n);
      context.globalAlpha = chosen.size && !chosen.has(n) ? 0.25 : 0.85;
      context.fillStyle = palette[shades[n]];
      context.beginPath();
      context.arc(x, y, size, 0, 7);
      context.fill();
    }
    context.globalAlpha = 1;
    context.strokeStyle = color("--ink");
    context.lineWidth = 1.5;
    context.beginPath();
    if (byKey) context.arc(circle.x, circle.y, circle.radius, 0, 7);
    line.forEach(([x, y], n) => (n ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (line.length) context.closePath();
    context.stroke();
  }

  function choose(isChosen) {
    chosen = new Set(order.filter((n) => isChosen(...place(n))));
    const ranks = [...chosen].map((n) => map.rank[n]).sort((a, b) => a - b);
    const link = document.getElementById("chosen");
    link.hidden = !ranks.length;
    link.firstElementChild.href = `${root}/jobs/${main.dataset.job}/explore?ranks=${ranks.slice(0, MOST_CHOSEN).join(",")}`;
    const more = ranks.length > MOST_CHOSEN ? `, of which the first ${MOST_CHOSEN} of the ranking can be shown` : "";
    say(ranks.length ? `${ranks.length} pairs chosen${more}.` : "No pair is there.");
    draw();
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    byKey = false;
    line = [[event.offsetX, event.offsetY]];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!line.length || !canvas.hasPointerCapture(event.pointerId)) return;
    line.push([event.offsetX, event.offsetY]);
    draw();
  });
  canvas.addEventListener("pointerup", () => {
    const polygon = line;
    line = [];
    choose((x, y) => within(polygon, x, y));
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const { width, height } = canvas.getBoundingClientRect();
    if (steps) {
      circle.x = Math.min(Math.max(circle.x + steps[0] * 16, 0), width);
      circle.y = Math.min(Math.max(circle.y + steps[1] * 16, 0), height);
    } else if (event.key === "+" || event.key === "-") {
      circle.radius = Math.min(Math.max(circle.radius * (event.key === "+" ? 1.25 : 0.8), 8), width);
    } else if (event.key === "Enter") {
      choose((x, y) => Math.hypot(x - circle.x, y - circle.y) <= circle.radius);
    } else {
      return;
    }
    byKey = true;
    event.preventDefault();
    draw();
  });
  canvas.addEventListener("focus", () => {
    if (circle.x) return;
    const { width, height } = canvas.getBoundingClientRect();
    [circle.x, circle.y] = [width / 2, height / 2];
  });
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const part = map.rank.length < map.pairs ? `, a random part of ${map.pairs.toLocaleString("en")}` : "";
  say(`${map.rank.length.toLocaleString("en")} pairs${part}; the plane holds ${Math.round(100 * map.explained)}% of the variance of their embeddings.`);
  draw();
}

if (canvas) {
  fetch(`${root}/jobs/${main.dataset.job}/map`)
    .then(async (answer) => (answer.ok ? answer.json() : Promise.reject(new Error((await answer.json()).detail))))
    .then(drawnMap)
    .catch((error) => say(error.message));
}
