"use strict";
// A browser of samples: filters over the columns of the index, a search through all texts, whole episodes on demand.

const ROWS = 50;  // of a page
const KEPT = 32;  // decompressed chunks
const ORDERS = {"as logged": null, "highest reward": ["reward", -1], "lowest reward": ["reward", 1],
  "longest": ["length", -1], "shortest": ["length", 1]};
const NONE = "(none)";  // the option for samples without a name in a column
const CUT_OFF = ["length", "window", "prompt", "turns", "sequences", "calls", "tool_seconds"];

const tokensOf = (count, kind = "") => `${count} ${kind}token${count === 1 ? "" : "s"}`;
const nothing = count => count ? `(no text: ${tokensOf(count, "special ")})` : "(empty)";

function verdictOf(columns, i) {
  if (columns.error[i]) return "unjudged";
  return columns.score[i] === 1 ? "right" : columns.score[i] === 0 ? "wrong" : "partly right";
}

// Indices of the samples that the filters leave: equal names, and ranges of numbers.
function chosen(index, filters) {
  const {columns} = index, found = [];
  const names = ["run", "task", "split", "finish_reason"].filter(name => filters[name] !== "")
    .map(name => [columns[name].of, columns[name].names.indexOf(filters[name] === NONE ? "" : filters[name])]);
  const ranges = ["step", "reward", "length"].map(name => [columns[name], ...filters[name]])
    .filter(([, low, high]) => low !== null || high !== null);
  for (let i = 0; i < index.count; i++) {
    if (names.some(([of, wanted]) => of[i] !== wanted)) continue;
    if (ranges.some(([values, low, high]) => values[i] === null || (low !== null && values[i] < low) || (high !== null && values[i] > high))) continue;
    if (filters.verdict !== "" && verdictOf(columns, i) !== filters.verdict) continue;
    if (filters.problem !== "" && columns.example.names[columns.example.of[i]].trim() !== filters.problem) continue;
    found.push(i);
  }
  const order = ORDERS[filters.order];
  if (order) {
    const values = columns[order[0]];  // without a value: at the end
    found.sort((a, b) => (values[a] === null) - (values[b] === null) || order[1] * (values[a] - values[b]) || a - b);
  }
  return found;
}

function textsOf(body) {
  return [body.prompt, body.completion, body.gold, body.answer, body.reason, body.error, ...(body.spans || []).map(span => span.text)]
    .filter(Boolean);
}

// The texts of sample i, from its chunk, of which the last used are kept.
function reader(index) {
  const kept = new Map(), chunkOf = i => {
    let low = 0, high = index.first.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (index.first[middle] <= i) low = middle; else high = middle - 1;
    }
    return low;
  };
  return async i => {
    const number = chunkOf(i), chunk = kept.get(number) || embedded(`samples-${number}`);
    kept.delete(number);
    kept.set(number, chunk);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    return (await chunk)[i - index.first[number]];
  };
}

async function showSamples(place) {
  const index = await embedded("samples");
  if (!index || !index.count) { place.replaceChildren(element("p", {}, "No samples yet.")); return; }
  const {columns} = index, read = reader(index), state = {found: [], page: 0, query: 0};
  const nameOf = (name, i) => columns[name].names[columns[name].of[i]];
  const inputs = {}, changed = () => update();
  const select = (name, values, label = name) => {
    inputs[name] = element("select", {id: `by-${name.replace("_", "-")}`, onchange: changed}, element("option", {value: ""}, `any ${label}`),
      ...values.map(value => element("option", {value: value || NONE}, value || NONE)));
    return values.length > 1 ? inputs[name] : null;
  };
  const range = name => {
    const ends = ["least", "most"].map(end => element("input", {type: "number", step: "any", placeholder: end, id: `${end}-${name}`, onchange: changed}));
    inputs[name] = ends;
    return element("label", {}, `${name} `, ...ends);
  };
  const text = inputs.text = element("input", {type: "search", id: "search", placeholder: "text in the prompt, completion, answer, reason, …", onchange: changed});
  const problem = inputs.problem = element("input", {type: "search", id: "problem", placeholder: "id of a problem", onchange: changed});
  inputs.order = element("select", {id: "order", onchange: changed}, ...Object.keys(ORDERS).map(name => element("option", {value: name}, name)));
  const status = element("p", {class: "faint", id: "found", role: "status"}), list = element("div", {id: "list"});
  const pager = element("p", {class: "controls"}), step = (label, move) => element("button", {type: "button", id: label, onclick: () => {
    state.page += move;
    show();
  }}, label), [previous, next] = [step("previous", -1), step("next", 1)], where = element("span");
  pager.append(previous, where, next);
  place.replaceChildren(element("p", {class: "controls"},
    ...[select("run", columns.run.names), select("task", columns.task.names), select("split", columns.split.names),
      select("verdict", ["right", "partly right", "wrong", "unjudged"]), select("finish_reason", columns.finish_reason.names, "finish reason")].filter(Boolean),
    range("step"), range("reward"), range("length"), problem, text, inputs.order,
    element("button", {type: "button", id: "clear", onclick: () => {
      for (const input of Object.values(inputs).flat()) input.value = input === inputs.order ? "as logged" : "";
      update();
    }}, "clear")), status, list, pager);

  function filters() {
    const number = input => input.value === "" ? null : Number(input.value);
    const found = {};
    for (const [name, input] of Object.entries(inputs)) found[name] = Array.isArray(input) ? input.map(number) : input.value.trim();
    return found;
  }

  async function update() {
    const query = ++state.query, wanted = filters();
    let found = chosen(index, wanted);
    if (wanted.text) {
      const words = wanted.text.toLowerCase(), kept = new Set(), ascending = [...found].sort((a, b) => a - b);
      let told = performance.now();
      for (const [done, i] of ascending.entries()) {
        const body = await read(i);
        if (query !== state.query) return;  // another query has begun
        if (textsOf(body).some(x => x.toLowerCase().includes(words))) kept.add(i);
        if (performance.now() - told > 100) {
          status.textContent = `searching: ${short(done)} of ${short(found.length)} samples`;
          await new Promise(resolve => setTimeout(resolve));
          told = performance.now();
        }
      }
      found = found.filter(i => kept.has(i));
    }
    if (query !== state.query) return;
    Object.assign(state, {found, page: 0});
    status.textContent = `${found.length.toLocaleString("en-US")} of ${index.count.toLocaleString("en-US")} samples`;
    await show();
    place.dispatchEvent(new Event("updated"));
  }

  async function show() {
    const query = state.query, pages = Math.max(1, Math.ceil(state.found.length / ROWS));
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const rows = [];
    for (const i of state.found.slice(state.page * ROWS, (state.page + 1) * ROWS)) rows.push(rowOf(i, await read(i)));
    if (query !== state.query) return;
    list.replaceChildren(...rows);
    where.textContent = ` page ${state.page + 1} of ${pages} `;
    previous.disabled = state.page === 0;
    next.disabled = state.page === pages - 1;
    pager.hidden = pages === 1;
  }

  function rowOf(i, body) {
    const verdict = verdictOf(columns, i), inLine = text => visible(text).replace(/\s+/g, " ");
    const asked = inLine((body.prompt || "").slice(-60)), line = `${asked} → ${inLine((body.completion || nothing(columns.length[i])).slice(0, 160))}`;
    const kind = {right: "right", wrong: "wrong", "partly right": "partly", unjudged: "error"}[verdict];
    const facts = [columns.run.names.length > 1 ? nameOf("run", i) : null, `step ${columns.step[i]}`, nameOf("split", i), nameOf("task", i)];
    const row = element("details", {class: "sample"}, element("summary", {},
      element("span", {class: "why"}, facts.filter(Boolean).join(" · ") + " "),
      element("span", {class: `badge ${kind}`}, verdict === "partly right" ? short(columns.score[i]) : verdict),
      element("span", {class: "why"}, columns.reward[i] === null ? " " : ` reward ${short(columns.reward[i])} `),
      element("code", {}, line)));
    row.addEventListener("toggle", () => { if (row.open && row.children.length === 1) row.append(detailsOf(i, body)); });
    return row;
  }

  function detailsOf(i, body) {
    const id = nameOf("example", i), finish = nameOf("finish_reason", i);
    const part = (label, value) => value ? element("div", {class: "told"}, element("span", {class: "why"}, label), element("pre", {}, visible(value))) : null;
    const terms = Object.entries(body.terms || {}).map(([name, value]) => `${name} ${short(value)}`).join(" + ");
    const facts = [
      columns.reward[i] === null ? null : `reward ${short(columns.reward[i])}${terms && ` = ${terms}`}`, `score ${short(columns.score[i])}`,
      body.answer ? `judged answer ${visible(body.answer)}` : null, body.reason ? visible(body.reason) : null, body.error ? visible(body.error) : null,
      `${tokensOf(columns.length[i] ?? "?")}${columns.turns[i] > 1 ? ` in ${columns.turns[i]} turns` : ""}`, `ended by ${finish || "?"}${CUT_OFF.includes(finish) ? " (cut off)" : ""}`,
    ];
    return element("div", {class: "details"}, part("prompt", body.prompt), ...(body.spans ? episodeOf(body) :
      [element("div", {class: "own"}, element("span", {class: "why"}, "completion"), element("pre", {}, visible(body.completion || nothing(columns.length[i]))))]),
      part("gold answer", body.gold), element("p", {class: "why"}, facts.filter(Boolean).join("; ")),
      element("button", {type: "button", class: "same", onclick: () => {
        for (const input of Object.values(inputs).flat()) if (input !== inputs.order) input.value = "";
        problem.value = id;
        update();
      }}, `all samples of ${visible(id)}`));
  }

  await update();
}

// The spans of an episode, each turn of the policy with the calls that it made.
function episodeOf(body) {
  let turn = -1, before = "";
  return body.spans.map(span => {
    const own = !span.depth && ["policy", "demonstration"].includes(span.author);
    const begins = own && !["policy", "demonstration", "forced"].includes(before);
    if (begins) turn += 1;
    before = span.depth ? "" : span.author;
    const calls = begins ? body.calls.filter(call => call.turn === turn) : [];
    const author = {env: "observation", other: "another policy", prompt: span.depth ? "question" : "new context window"}[span.author] || span.author;
    return element("div", {class: span.trained ? "own" : "told"}, element("span", {class: "why"},
      `${author}${span.depth ? " (asked by the policy)" : ""} · ${tokensOf(span.tokens)}${span.trained ? "" : ", not trained on"}`,
      ...calls.map(call => ` · ${visible(call.tool) || "call"}: ${visible(call.outcome)}${call.error ? ` (${visible(call.error)})` : ""}`)), element("pre", {}, visible(span.text || nothing(span.tokens))));
  });
}
