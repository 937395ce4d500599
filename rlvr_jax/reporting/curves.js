"use strict";
// Curves of one or several runs as SVG: values under the pointer, logarithmic axes, runs laid over each other.

const CYCLE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a8f98", "#7a5195"];
const DASHES = [null, "6 3", "2 3", "8 3 2 3"];
const LOST = "#c1121f", FAINT = "#6b7280";
const LEFT = 58, RIGHT = 12, TOP = 8, BOTTOM = 34;  // around the plot, in units of the drawing
const MARKED = 60;  // evaluations of a line that are few enough for a mark each

// The lines of a panel: of one run in the panel's colours, of several in a colour for each run.
function linesOf(panel, runs) {
  const lines = [], many = runs.length > 1;
  panel.series.forEach((series, i) => runs.forEach((run, r) => {
    const found = run.metrics[series.metric];
    if (!found || run.hidden) return;
    const [x, y, lost] = found, low = run.metrics[series.metric + "_low"], high = run.metrics[series.metric + "_high"];
    const banded = low && high && low[0].length === x.length;
    lines.push({
      x, y, lost, low: banded ? low[1] : null, high: banded ? high[1] : null, width: series.width || 1.6,
      label: many ? (panel.series.length > 1 ? `${run.label}, ${series.label}` : run.label) : series.label,
      colour: many ? CYCLE[r % CYCLE.length] : series.colour, dash: many ? DASHES[i % DASHES.length] : null,
      marked: /^(eval|task)\//.test(series.metric) ? x.length <= MARKED : x.length <= 1,
    });
  }));
  return lines;
}

function finite(values) {
  return values.filter(value => value !== null);
}

function span(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

// Lowest and highest value of the vertical axis, as in curves.py.
function limits(panel, values, log) {
  if (!values.length) return [0, 1];
  const [low, high] = span(values);
  if (log) {
    const [least] = span(values.filter(value => value > 0));
    return [least / 1.5, high * 1.5];
  }
  if (low >= 0 && high <= 1 && (panel.scale === "share" || panel.wide)) return [-0.03, 1.04];
  if (low >= 0) return [0, high * 1.12 || 1];
  const room = 0.08 * (high - low) || Math.abs(high);
  return [low - room, high + room];
}

// A position for each value; on a logarithmic axis what is not above 0 lies at its beginning.
function axis(log, [low, high], from, to) {
  if (!log) return value => from + (to - from) * (value - low) / (high - low);
  const width = Math.log(high / low);
  return value => value <= low ? from : from + (to - from) * Math.log(value / low) / width;
}

function ticks(log, [low, high], most) {
  if (log) {
    const found = [], first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
    const factors = last - first <= 2 ? [1, 2, 5] : [1];
    const stride = Math.max(1, Math.ceil((last - first) / most));
    for (let power = first; power <= last; power += stride)
      for (const factor of factors) found.push(factor * 10 ** power);
    const inside = found.filter(value => value >= low && value <= high);
    if (inside.length > 1) return inside;
  }
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const stride = power * [1, 2, 5, 10].find(factor => factor * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / stride - 1e-9); i * stride <= high + 1e-9 * stride; i++) found.push(i * stride);
  return found;
}

function path(xs, ys, x, y) {
  let text = "", pen = false;
  xs.forEach((step, i) => {
    if (ys[i] === null) { pen = false; return; }
    text += `${pen ? "L" : "M"}${x(step).toFixed(1)} ${y(ys[i]).toFixed(1)}${pen ? "" : "h0"}`;  // a point between gaps shows as a dot
    pen = true;
  });
  return text;
}

function band(line, x, y) {
  const there = line.x.map((_, i) => i).filter(i => line.low[i] !== null && line.high[i] !== null);
  if (there.length < 2) return null;
  const top = there.map(i => `${x(line.x[i]).toFixed(1)} ${y(line.high[i]).toFixed(1)}`);
  const bottom = there.reverse().map(i => `${x(line.x[i]).toFixed(1)} ${y(line.low[i]).toFixed(1)}`);
  return element("path", {d: `M${top.join("L")}L${bottom.join("L")}Z`, fill: line.colour, opacity: 0.13, class: "band"});
}

function nearest(sorted, value) {
  let low = 0, high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1; else high = middle;
  }
  return low > 0 && value - sorted[low - 1] <= sorted[low] - value ? low - 1 : low;
}

// The parts of a stack as lines at the middle of its bars, and the areas that they fill.
function stackOf(panel) {
  const {edges, heights} = panel.stack, middles = heights[0].map((_, i) => (edges[2 * i] + edges[2 * i + 1]) / 2);
  const floors = middles.map(() => 0);
  const lines = panel.series.map((series, s) => {
    const bottom = [...floors];
    heights[s].forEach((height, i) => { floors[i] += height; });
    return {x: middles, y: heights[s], lost: [], low: null, high: null, label: series.label, colour: series.colour,
      bottom, top: [...floors]};
  });
  const usual = [...floors].sort((a, b) => a - b)[Math.floor(0.9 * (floors.length - 1))] || 0;
  const highest = Math.max(0, ...floors), clipped = highest > 4 * usual && usual > 0;
  return {lines, edges, range: [0, clipped ? 2 * usual : highest * 1.12 || 1],
    note: clipped ? `off the axis: up to ${short(highest)} s (step ${Math.round(middles[floors.indexOf(highest)])})` : ""};
}

function figureOf(panel, runs, changes) {
  const state = {log: panel.scale === "log", logSteps: false};
  const title = element("span", {}, element("b", {}, panel.title), element("span", {class: "why"}, ` ${panel.unit}`)), legend = element("div", {class: "legend"});
  const button = element("button", {type: "button", class: "log", title: "logarithmic or linear vertical axis",
    onclick: () => { state.log = !state.log; draw(); }});
  const plot = element("div", {class: "plot"}), tip = element("div", {class: "tip", hidden: true});
  const figure = element("figure", {class: panel.wide ? "wide" : null, "data-panel": panel.title},
    element("div", {class: "title"}, title, button), legend, plot, element("figcaption", {}, panel.caption));
  const [width, height] = panel.wide ? [960, 330] : [470, 240];

  function draw() {
    const stack = panel.kind === "stack" && runs.length === 1 && panel.stack.edges.length ? stackOf(panel) : null;
    const lines = stack ? stack.lines : linesOf(panel, runs);
    const shown = lines.flatMap(line => [line.y, line.low || [], line.high || []].flatMap(finite));
    const log = state.log && !stack && shown.some(value => value > 0);
    const steps = lines.flatMap(line => line.x), [first, last] = steps.length ? span(steps) : [0, 1];
    const positive = steps.filter(step => step > 0), logSteps = state.logSteps && positive.length > 0 && !stack;
    const margin = Math.max(0.5, 0.015 * (last - first)), least = logSteps ? span(positive)[0] : 1;
    const across = logSteps ? [least / 1.3, Math.max(last, least) * 1.1] : [first - margin, last + margin];
    const range = stack ? stack.range : limits(panel, shown, log);
    const x = axis(logSteps, across, LEFT, width - RIGHT), y = axis(log, range, height - BOTTOM, TOP);
    const svg = element("svg", {viewBox: `0 0 ${width} ${height}`, tabindex: 0, role: "img", "aria-label": panel.title,
      "data-scale": log ? "log" : "linear"});
    for (const value of ticks(log, range, panel.wide ? 7 : 5)) {
      svg.append(element("line", {x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), stroke: "#e6e8eb"}),
        element("text", {x: LEFT - 6, y: y(value) + 3.5, "text-anchor": "end"}, short(Number(value.toPrecision(6)))));
    }
    for (const value of ticks(logSteps, across, panel.wide ? 10 : 6).filter(value => Number.isInteger(value)))
      svg.append(element("text", {x: x(value), y: height - BOTTOM + 15, "text-anchor": "middle"}, String(value)));
    svg.append(element("text", {x: width - RIGHT, y: height - 4, "text-anchor": "end"}, "step"),
      element("line", {x1: LEFT, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM, stroke: "#c3c7ce"}));
    for (const line of lines) {
      if (line.top) {
        const inside = value => Math.max(TOP, y(value));
        const edge = values => values.flatMap((value, i) => [2 * i, 2 * i + 1].map(e => `${x(stack.edges[e]).toFixed(1)} ${inside(value).toFixed(1)}`));
        svg.append(element("path", {d: `M${edge(line.top).join("L")}L${edge(line.bottom).reverse().join("L")}Z`, fill: line.colour, class: "part"}));
        continue;
      }
      if (line.low) { const area = band(line, x, y); if (area) svg.append(area); }
      svg.append(element("path", {d: path(line.x, line.y, x, y), fill: "none", stroke: line.colour,
        "stroke-width": line.width, "stroke-dasharray": line.dash, "stroke-linejoin": "round", "stroke-linecap": "round", class: "curve"}));
      if (line.marked) line.x.forEach((step, i) => line.y[i] !== null && svg.append(
        element("circle", {cx: x(step), cy: y(line.y[i]), r: 2.4, fill: line.colour})));
    }
    for (const [step, change] of changes) {
      const where = x(step + 0.5);
      svg.append(element("g", {class: "changed"}, element("title", {}, `after step ${step}: ${change}`),
        element("line", {x1: where, x2: where, y1: TOP, y2: height - BOTTOM, stroke: FAINT, "stroke-dasharray": "2 3"})));
    }
    for (const step of new Set(lines.flatMap(line => line.lost)))
      svg.append(element("line", {x1: x(step), x2: x(step), y1: height - BOTTOM - 9, y2: height - BOTTOM, stroke: LOST, "stroke-width": 1.6, class: "lost"}));
    if (stack && stack.note) svg.append(element("text", {x: width - RIGHT - 4, y: TOP + 10, "text-anchor": "end"}, stack.note));
    plot.replaceChildren(svg, tip);
    button.textContent = `axis: ${log ? "log" : "linear"}`;
    button.hidden = Boolean(stack);
    legend.replaceChildren(...lines.map(line => element("span", {}, swatch(line),
      `${line.label}: `, element("b", {}, lastOf(line)))),
      ...(lines.some(line => line.lost.length) ? [element("span", {style: `color: ${LOST}`}, `not finite (${new Set(lines.flatMap(line => line.lost)).size})`)] : []));
    hover(svg, lines, x, across, logSteps);
  }

  function hover(svg, lines, x, across, logSteps) {
    const steps = [...new Set(lines.flatMap(line => line.x))].sort((a, b) => a - b);
    if (!steps.length) return;
    const guide = element("line", {y1: TOP, y2: height - BOTTOM, stroke: FAINT, "stroke-width": 0.8, visibility: "hidden", class: "guide"});
    svg.append(guide);
    let at = -1;
    const show = place => {
      at = Math.min(Math.max(place, 0), steps.length - 1);
      const step = steps[at], where = x(step);
      for (const [name, value] of [["x1", where], ["x2", where], ["visibility", "visible"]]) guide.setAttribute(name, value);
      tip.replaceChildren(element("b", {}, `step ${short(step)}`), ...lines.map(line => {
        const i = nearest(line.x, step), interval = line.low && line.low[i] !== null ? ` (${short(line.low[i])} to ${short(line.high[i])})` : "";
        const elsewhere = line.x[i] === step ? "" : `, at step ${short(line.x[i])}`;
        return element("div", {}, swatch(line), `${line.label} `, element("b", {}, line.y[i] !== null ? short(line.y[i]) : line.lost.includes(line.x[i]) ? "not finite" : "none"), interval + elsewhere);
      }));
      tip.hidden = false;
      const share = where / width;
      tip.style.left = share < 0.5 ? `calc(${100 * share}% + 10px)` : "";
      tip.style.right = share < 0.5 ? "" : `calc(${100 * (1 - share)}% + 10px)`;
    };
    const hide = () => { tip.hidden = true; guide.setAttribute("visibility", "hidden"); };
    svg.addEventListener("pointermove", event => {
      const box = svg.getBoundingClientRect(), share = ((event.clientX - box.left) / box.width * width - LEFT) / (width - LEFT - RIGHT);
      const [low, high] = across;
      show(nearest(steps, logSteps ? low * (high / low) ** share : low + share * (high - low)));
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", event => {
      const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (move) { show(at + move); event.preventDefault(); }
    });
    hide();
  }

  draw();
  return {figure, draw, state};
}

function swatch(line) {
  return element("i", {style: `border-top: 3px ${line.dash ? "dashed" : "solid"} ${line.colour}`});
}

function lastOf(line) {
  const values = finite(line.y);
  return values.length ? short(values[values.length - 1]) : "(no finite value)";
}

async function showCurves(place) {
  const {runs, panels, changes} = await embedded("curves");
  const figures = panels.map(panel => figureOf(panel, runs, changes));
  const grid = element("div", {class: "figures"}, ...figures.map(made => made.figure));
  const redraw = change => { figures.forEach(change); figures.forEach(made => made.draw()); };
  const names = [...new Set(runs.flatMap(run => Object.keys(run.metrics)))].sort();
  const chooser = element("select", {id: "metric", onchange: () => {
    if (!chooser.value) return;
    const made = figureOf({title: chooser.value, unit: "", caption: "", kind: "lines", scale: "linear", wide: false,
      series: [{metric: chooser.value, label: chooser.value, colour: CYCLE[0]}]}, runs, changes);
    made.state.logSteps = steps.checked;
    made.draw();
    figures.push(made);
    grid.append(made.figure);
    made.figure.scrollIntoView({block: "nearest"});
    chooser.value = "";
  }}, element("option", {value: ""}, "another metric …"), ...names.map(name => element("option", {}, name)));
  const steps = element("input", {type: "checkbox", id: "log-steps",
    onchange: () => redraw(made => { made.state.logSteps = steps.checked; })});
  const controls = element("p", {class: "controls"},
    "all vertical axes: ",
    element("button", {type: "button", id: "all-linear", onclick: () => redraw(made => { made.state.log = false; })}, "linear"),
    element("button", {type: "button", id: "all-log", onclick: () => redraw(made => { made.state.log = true; })}, "log"),
    element("label", {}, steps, " logarithmic steps"), chooser);
  if (runs.length > 1) controls.append(...runs.map((run, r) => element("label", {class: "run"},
    element("input", {type: "checkbox", checked: true, onchange: event => { run.hidden = !event.target.checked; redraw(() => {}); }}),
    swatch({colour: CYCLE[r % CYCLE.length]}), run.label)));
  place.replaceChildren(controls, grid);
}
