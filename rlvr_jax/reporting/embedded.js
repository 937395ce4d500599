"use strict";
// What both scripts of a report need: the embedded data, and elements made from text, never from markup.

async function embedded(id) {
  const piece = document.getElementById(id);
  if (!piece) return null;
  const bytes = Uint8Array.from(atob(piece.textContent), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "title", "g", "path", "line", "text", "rect", "circle"].includes(tag);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

// As `short` in curves.py.
function short(value) {
  if (value === null || value === undefined) return "-";
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  if (size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(size < 100 ? 3 : 4)));
}

// Model text with visible control characters, as `shown` in pages.py.
function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}]/gu, c =>
    c === "\n" || c === "\t" ? c : "\\x" + c.codePointAt(0).toString(16).padStart(2, "0"));
}
