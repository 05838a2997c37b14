"use strict";
// The data and the pictures are in this file; nothing is fetched. Pictures are decoded when they are first shown.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = new Map(data.features.map((one) => [one.id, one]));
const placeOfRow = new Map(data.rows.map((row, place) => [row, place]));
const views = ["overview", "feature", "person", "explanation"].map((id) => document.getElementById(id));
const [overview, featureView, personView, explanationView] = views;
const POSES = { right: "turned right", left: "turned left", turned: "turned to a side", frontal: "frontal", invariant: "any" };
const CORRELATIONS = {
  yaw: "nose to the right of the picture", turn: "turned to a side", sharpness: "sharp picture",
  interocular: "large in its photograph", norm: "long template", face_size: "large face", roll: "tilted",
  brightness: "bright picture", grayness: "gray picture",
};

// Elements are made, never parsed from text, so that no name in the data becomes markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}
const svg = (tag, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};
const number = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toLocaleString("en"));
const percent = (share) => (share === null ? "–" : `${number(100 * share, share < 0.0001 ? 1 : 3)} %`);
const NO_MEANING = "no confirmed meaning";
const plural = (n, word, words = `${word}s`) => `${n.toLocaleString("en")} ${n === 1 ? word : words}`;
const chance = (p) => (p === null ? "" : p < 1e-6 ? "less than 1 in a million" : p < 0.001 ? `1 in ${Math.round(1 / p).toLocaleString("en")}` : number(p, 2));
const link = (id) => (byId.has(id) ? `#feature-${id}` : data.elsewhere[id] ? `${data.elsewhere[id]}#feature-${id}` : "#");
const linkOfPerson = (person) => `#person-${encodeURIComponent(person)}`;

// Pictures: a tile shows its part of a sheet.
const addresses = new Map();
function address(id) {
  if (!addresses.has(id)) {
    const [head, body] = document.getElementById(id).textContent.split(",");
    const bytes = Uint8Array.from(atob(body), (character) => character.charCodeAt(0));
    addresses.set(id, URL.createObjectURL(new Blob([bytes], { type: head.slice(5, -7) })));
  }
  return addresses.get(id);
}
function tile(kind, place, n, label) {
  const sheet = Math.floor(place / data.atOnce), inside = place % data.atOnce;
  const inSheet = Math.min(data.atOnce, n - sheet * data.atOnce);
  const columns = Math.min(data.columns, inSheet), rows = Math.ceil(inSheet / columns);
  const [column, row] = [inside % columns, Math.floor(inside / columns)];
  const at = (index, count) => (count > 1 ? `${(100 * index) / (count - 1)}%` : "0%");
  const element = make("span", { class: "tile", role: "img", "aria-label": label });
  element.style.background = `url(${address(`${kind}-${sheet}`)}) ${at(column, columns)} ${at(row, rows)} / ${100 * columns}% ${100 * rows}%`;
  return element;
}
const N_IMAGES = Object.keys(data.images).length;
const N_DIALS = data.features.reduce((sum, one) => sum + (one.dial ? one.dial.steps.length : 0), 0);
function faceTile([row, activation]) {
  const place = placeOfRow.get(row), person = data.people[place];
  const picture = make("a", { href: linkOfPerson(person) }, tile("face", place, data.rows.length, `face of ${person}, activation ${number(activation)}`));
  return make("figure", {}, picture, make("figcaption", {}, number(activation)));
}

// The list: filtered, sorted, and only the rows that are in sight are in the document.
const KIND = (kind) => (kind === "identity" ? "a person" : kind);
const QUALITY = { invariant: "does not matter", equivariant: "matters" };
const columns = [
  { name: "Feature", width: "86px", number: true, value: (one) => one.id, show: (one) => make("a", { href: link(one.id) }, String(one.id)) },
  { name: "Meaning", value: (one) => (one.confirmed ? one.reading : ""), show: (one) => make("span", { class: one.confirmed ? null : "unread", title: one.reading }, one.confirmed ? one.reading : "not found") },
  { name: "Kind", width: "130px", wide: true, value: (one) => (one.kind === "unread" ? "" : KIND(one.kind)) },
  { name: "Faces", width: "90px", number: true, value: (one) => one.density, show: (one) => percent(one.density) },
  { name: "People", width: "80px", number: true, wide: true, value: (one) => one.people },
  { name: "Density", width: "84px", wide: true, value: (one) => one.cluster },
  { name: "Pose", width: "120px", wide: true, value: (one) => POSES[one.pose] || "", only: (one) => POSES[one.pose] },
  { name: "Picture quality", width: "150px", wide: true, value: (one) => QUALITY[one.quality] || "", only: (one) => QUALITY[one.quality] },
  { name: "Stable", width: "80px", number: true, wide: true, value: (one) => one.stability, only: (one) => one.stability !== null },
  { name: "Images", width: "110px", wide: true, value: (one) => (one.images ? (one.imagesConfirmed ? "confirmed" : "not confirmed") : ""), only: (one) => one.images },
].filter((column) => !column.only || data.features.some(column.only));
const ROW = 38;
const table = document.getElementById("table"), body = table.querySelector("tbody");
const field = (id) => document.getElementById(id);
let order = { column: null, down: false }; // at first: what is most certain
let shown = data.features.slice();

for (const column of columns) {
  const button = make("button", { type: "button", onclick: () => sort(column) }, column.name);
  const classes = [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ");
  column.head = make("th", { scope: "col", class: classes || null, style: column.width ? `width:${column.width}` : null }, button);
  table.querySelector("thead tr").append(column.head);
}
const kinds = [...new Set(data.features.map((one) => one.kind))].filter((kind) => kind !== "unread").sort();
for (const kind of kinds) field("kind").append(make("option", { value: kind }, KIND(kind)));
field("kind").append(make("option", { value: "unread" }, "not found"));

function sort(column) {
  order = { column, down: order.column === column ? !order.down : Boolean(column.number && column.name !== "Feature") };
  update();
}
function update() {
  const words = field("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [kind, cluster] = [field("kind").value, field("cluster").value];
  const images = field("images-confirmed");
  shown = data.features.filter(
    (one) =>
      (!kind || one.kind === kind) && (!cluster || one.cluster === cluster) &&
      (!field("confirmed").checked || one.confirmed) && (!images || !images.checked || one.imagesConfirmed) &&
      words.every((word) => String(one.id) === word || one.reading.toLowerCase().includes(word)),
  );
  const { column, down } = order;
  const missing = (value) => value === null || value === undefined || value === "";
  const doubt = (one) => (one.confirmed ? (one.strong ? 0 : 1) : 2);
  shown.sort((one, other) => {
    if (!column) return doubt(one) - doubt(other) || (one.p ?? 1) - (other.p ?? 1) || one.id - other.id;
    const [a, b] = [column.value(one), column.value(other)];
    if (missing(a) || missing(b)) return missing(a) - missing(b) || one.id - other.id;
    const less = typeof a === "number" ? a - b : String(a).localeCompare(String(b));
    return (down ? -less : less) || one.id - other.id;
  });
  for (const one of columns) one.head.setAttribute("aria-sort", one === column ? (down ? "descending" : "ascending") : "none");
  field("count").textContent = shown.length === data.features.length ? plural(shown.length, "feature") : `${shown.length.toLocaleString("en")} of ${plural(data.features.length, "feature")}`;
  table.scrollTop = 0;
  drawRows();
  drawMap();
}
function drawRows() {
  const first = Math.max(0, Math.floor(table.scrollTop / ROW) - 8);
  const last = Math.min(shown.length, first + Math.ceil(table.clientHeight / ROW) + 16);
  const space = (rows) => make("tr", { class: "space", "aria-hidden": "true", style: `height:${rows * ROW}px` });
  const rows = shown.slice(first, last).map((one, place) => {
    const cells = columns.map((column) => {
      const content = column.show ? column.show(one) : missingAsBlank(column.value(one));
      const classes = [column.number && "number", column.wide && "wide", content === "confirmed" && "yes"].filter(Boolean).join(" ");
      return make("td", { class: classes || null }, content);
    });
    return make("tr", { "aria-rowindex": first + place + 2, onclick: (event) => { if (!event.target.closest("a")) go(`#feature-${one.id}`); } }, ...cells);
  });
  table.querySelector("table").setAttribute("aria-rowcount", shown.length + 1);
  body.replaceChildren(space(first), ...rows, space(shown.length - last));
}
const missingAsBlank = (value) => (value === null || value === undefined ? "" : typeof value === "number" ? number(value) : value);
table.addEventListener("scroll", () => requestAnimationFrame(drawRows));
for (const id of ["search", "kind", "cluster", "confirmed", "images-confirmed"]) field(id)?.addEventListener("input", update);
document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());

// Round numbers between two powers of ten.
function ticks(low, high) {
  const found = [];
  for (let power = Math.floor(low); power <= high; power++)
    for (const step of high - low > 2 ? [1] : [1, 2, 5]) if (Math.log10(step) + power >= low && Math.log10(step) + power <= high) found.push(step * 10 ** power);
  return found;
}

// The map: density against the mean activation, both logarithmic.
const map = field("map"), tip = field("map-tip");
let points = [];
function drawMap() {
  const box = map.getBoundingClientRect();
  if (!box.width) return;
  const scale = window.devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
  map.width = box.width * scale;
  map.height = box.height * scale;
  const draw = map.getContext("2d");
  draw.scale(scale, scale);
  const [left, right, top, bottom] = [64, 16, 16, 44];
  const ends = (values) => {
    const logs = values.filter((value) => value > 0).map(Math.log10);
    const [low, high] = [logs.reduce((a, b) => Math.min(a, b), Infinity), logs.reduce((a, b) => Math.max(a, b), -Infinity)];
    return logs.length ? [low - 0.08, Math.max(high, low + 0.1) + 0.08] : [0, 1];
  };
  const [x0, x1] = ends(data.features.map((one) => one.density)), [y0, y1] = ends(data.features.map((one) => one.mean));
  const toX = (value) => left + ((Math.log10(value) - x0) / (x1 - x0)) * (box.width - left - right);
  const toY = (value) => box.height - bottom - ((Math.log10(value) - y0) / (y1 - y0)) * (box.height - top - bottom);
  draw.font = "12px system-ui, sans-serif";
  draw.fillStyle = style.getPropertyValue("--soft");
  draw.strokeStyle = style.getPropertyValue("--line");
  for (const value of ticks(x0, x1)) {
    draw.textAlign = "center";
    const words = percent(value), room = box.width - draw.measureText(words).width / 2 - 2; // the last one is not cut
    draw.fillText(words, Math.min(toX(value), room), box.height - bottom + 17);
    draw.beginPath(); draw.moveTo(toX(value), top); draw.lineTo(toX(value), box.height - bottom); draw.stroke();
  }
  for (const value of ticks(y0, y1)) {
    draw.textAlign = "right";
    draw.fillText(number(value), left - 7, toY(value) + 4);
    draw.beginPath(); draw.moveTo(left, toY(value)); draw.lineTo(box.width - right, toY(value)); draw.stroke();
  }
  draw.textAlign = "center";
  draw.fillText("share of the faces that fire it", (left + box.width - right) / 2, box.height - 8);
  draw.save(); draw.translate(14, (top + box.height - bottom) / 2); draw.rotate(-Math.PI / 2);
  draw.fillText("mean activation", 0, 0); draw.restore();
  const inList = new Set(shown.map((one) => one.id)), radius = data.features.length > 5000 ? 1.6 : data.features.length > 800 ? 2.6 : 4;
  points = [];
  for (const one of data.features) {
    if (!(one.density > 0 && one.mean > 0)) continue;
    const [x, y, visible] = [toX(one.density), toY(one.mean), inList.has(one.id)];
    if (visible) points.push([x, y, one]);
    draw.globalAlpha = visible ? 0.85 : 0.12;
    draw.beginPath(); draw.arc(x, y, radius, 0, 2 * Math.PI);
    if (one.confirmed) { draw.fillStyle = style.getPropertyValue("--accent"); draw.fill(); }
    else { draw.strokeStyle = style.getPropertyValue("--point"); draw.stroke(); }
  }
  draw.globalAlpha = 1;
}
function nearestPoint(event) {
  const box = map.getBoundingClientRect(), [x, y] = [event.clientX - box.left, event.clientY - box.top];
  let best = null, least = 15 ** 2;
  for (const point of points) {
    const distance = (point[0] - x) ** 2 + (point[1] - y) ** 2;
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}
map.addEventListener("mousemove", (event) => {
  const point = nearestPoint(event);
  tip.hidden = !point;
  if (!point) return;
  tip.textContent = `Feature ${point[2].id}: ${point[2].confirmed ? point[2].reading : NO_MEANING}`;
  tip.style.left = `${Math.min(point[0] + 12, map.clientWidth - 310)}px`;
  tip.style.top = `${Math.max(0, point[1] - 44)}px`;
});
map.addEventListener("mouseleave", () => { tip.hidden = true; });
map.addEventListener("click", (event) => {
  const point = nearestPoint(event);
  if (point) go(`#feature-${point[2].id}`);
});

// A feature.
function verdict(image) {
  const said = [image.to_maximum === null ? "" : `fires it ${number(image.to_maximum, 2)} × as hard as the hardest real face`];
  said.push(`a detector sees a face with probability ${number(image.face_probability, 2)}`);
  if (image.judge_auc !== null && image.judge_auc !== undefined)
    said.push(`a second recognizer finds it closer to one of the feature's faces than to another face in ${Math.round(100 * image.judge_auc)} of 100 cases`);
  return said.filter(Boolean).join("; ");
}
function curve(one) {
  const [width, height, left, bottom, top] = [640, 190, 62, 40, 10];
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${percent(one.density)} of the faces fire it, the hardest with ${number(one.max)}` });
  const most = Math.max(one.max, ...(one.images || []).map((image) => image.activation || 0)) * 1.05 || 1;
  const [low, high] = [Math.log10(Math.min(...one.curve.map(([share]) => share))), Math.log10(Math.max(one.density, 1e-9)) + 0.1];
  const x = (value) => left + (value / most) * (width - left - 12);
  const y = (share) => top + ((high - Math.log10(share)) / (high - low || 1)) * (height - top - bottom);
  const text = (words, attributes) => { const element = svg("text", attributes); element.textContent = words; picture.append(element); };
  const line = one.curve.map(([share, value]) => `${x(value)},${y(share)}`).join(" ");
  picture.append(svg("polygon", { points: `${x(0)},${height - bottom} ${line} ${x(one.max)},${height - bottom}`, fill: "var(--accent)", opacity: 0.16 }));
  picture.append(svg("polyline", { points: line, fill: "none", stroke: "var(--accent)", "stroke-width": 2 }));
  for (const image of one.images || [])
    picture.append(svg("line", { x1: x(image.activation), x2: x(image.activation), y1: top, y2: height - bottom, stroke: "var(--good)", "stroke-width": 2 }));
  for (const share of ticks(low, high)) text(percent(share), { x: left - 8, y: y(share) + 4, "text-anchor": "end" });
  for (let part = 0; part <= 4; part++) text(number((most * part) / 4, 2), { x: x((most * part) / 4), y: height - bottom + 16, "text-anchor": "middle" });
  text(`activation${one.images ? " (green: the optimized images)" : ""}`, { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" });
  return picture;
}
function facts(one) {
  const rows = [
    ["Fires on", `${percent(one.density)} of the faces (${plural(one.n, "face")}${one.people ? `, ${plural(one.people, "person", "people")}` : ""})`],
    ["Activation", `mean ${number(one.mean)}, largest ${number(one.max)}`],
    ["Density", `${one.cluster} cluster`],
    one.confirmed && one.share !== null ? ["Top faces with it", `${percent(one.share)}; of all faces ${percent(one.base)}`] : null,
    one.confirmed && one.p !== null ? ["By chance", `probability ${chance(one.p)} on the people it was confirmed on`] : null,
    POSES[one.pose] ? ["Pose", POSES[one.pose]] : null,
    QUALITY[one.quality] ? ["Picture quality", QUALITY[one.quality]] : null,
    one.stability !== null ? ["Found again", `cosine ${number(one.stability)} with its match in other SAEs`] : null,
  ];
  const goes = Object.entries(one.rho).filter(([, value]) => value !== null && Math.abs(value) >= 0.1).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  rows.push(["Correlated with", goes.length ? goes.map(([name, value]) => `${CORRELATIONS[name] || name} (${number(value, 2).replace("-", "−")})`).join(", ") : "no property of the picture"]);
  return make("dl", { class: "facts" }, ...rows.filter(Boolean).flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)]));
}
function section(title, note, ...content) {
  return make("section", {}, make("h2", {}, title), note ? make("p", { class: "note" }, note) : null, ...content);
}
function howSure(one) {
  if (!one.confirmed) return one.judged ? "Nothing that was found on one half of the people held on the other half." : "It fires on the faces of too few people to be judged.";
  if (one.kind === "identity") return "Found on some pictures of this person and confirmed on others.";
  return `Found on one half of the people and confirmed on the other${one.strong ? "; strong: almost all of its top faces have it, and clearly fewer of all faces" : ""}.`;
}
function showFeature(one) {
  const place = shown.indexOf(one);
  const step = (at, words) => (shown[at] ? make("a", { href: link(shown[at].id) }, words) : make("span", {}, ""));
  const parts = [
    make("nav", { class: "steps", "aria-label": "Features" }, step(place - 1, "← Previous"), make("a", { href: "#" }, "All features"), step(place + 1, "Next →")),
    make("h1", { tabindex: "-1" }, `Feature ${one.id}`),
    make("p", { class: `reading${one.confirmed ? "" : " unread"}` }, one.confirmed ? one.reading : "No meaning was confirmed."),
    make("p", { class: "note" }, howSure(one)),
  ];
  if (one.top) parts.push(section("Faces that fire it most", "At most 3 of a person. Below: how hard the face fires it. A face leads to its person.", make("div", { class: "row" }, ...one.top.map(faceTile))));
  if (one.sampled && one.sampled.length) parts.push(section("Faces from all that fire it", "Drawn at random from weak to strong, the strongest first.", make("div", { class: "row" }, ...one.sampled.map(faceTile))));
  if (one.images) {
    const tiles = one.images.map((image) => {
      const words = make("span", { class: image.confirmed ? "yes" : "" }, image.confirmed ? "confirmed" : `not confirmed${image.doubts ? ` (${image.doubts})` : ""}`);
      const picture = tile("image", data.images[image.file], N_IMAGES, `image optimized to fire feature ${one.id}, activation ${number(image.activation)}`);
      return make("figure", {}, picture, make("figcaption", {}, `${number(image.activation)}, `, words, make("br"), verdict(image)));
    });
    parts.push(section("Images optimized to fire it", data.rule, make("div", { class: "row large" }, ...tiles)));
  }
  if (one.dial) {
    const tiles = one.dial.steps.map((at, index) => {
      const words = at === 0 ? "mean face" : `${at > 0 ? "+" : "−"}${Math.abs(at)} SD`;
      return make("figure", {}, tile("dial", data.dials[one.dial.file] + index, N_DIALS, `mean face moved by ${words}, activation ${number(one.dial.activation[index])}`), make("figcaption", {}, words, make("br"), number(one.dial.activation[index])));
    });
    parts.push(section("Dial", "The mean face, changed until its template moves along the feature by so many standard deviations (SD) of real faces. Below: activation.", make("div", { class: "dial" }, ...tiles)));
  }
  const near = one.near.map(([id, cosine]) => {
    const other = byId.get(id);
    return make("li", {}, make("a", { href: link(id) }, String(id)), make("span", { class: "words" }, other ? (other.confirmed ? other.reading : NO_MEANING) : "on another page"), make("span", {}, number(cosine, 2)));
  });
  parts.push(make("div", { class: "columns" },
    make("div", {}, section("How many faces fire it how hard", one.n > 1 ? "Share of all faces that fire it at least so hard, between known quantiles straight." : "One face fires it.", one.n > 1 ? curve(one) : null)),
    make("div", {}, section("Properties", "", facts(one)), near.length ? section("Nearest features", "By the cosine of their decoder rows; 1 is the same direction.", make("ul", { class: "near" }, ...near)) : null)));
  featureView.replaceChildren(...parts);
  show(featureView, `Feature ${one.id}`);
}

// A person: the faces in this page, and the features in whose lists they are.
function showPerson(name) {
  const rows = data.rows.filter((_, place) => data.people[place] === name), own = new Set(rows);
  const fired = data.features
    .map((one) => [one, Math.max(0, ...[...(one.top || []), ...(one.sampled || [])].filter(([row]) => own.has(row)).map(([, activation]) => activation / (one.max || 1)))])
    .filter(([, share]) => share > 0)
    .sort((a, b) => b[1] - a[1]);
  const tiles = rows.map((row) => make("figure", {}, tile("face", placeOfRow.get(row), data.rows.length, `face of ${name}`)));
  const lines = fired.slice(0, 200).map(([one, share]) => make("li", {}, make("a", { href: link(one.id) }, String(one.id)), make("span", { class: "words" }, one.confirmed ? one.reading : NO_MEANING), make("span", {}, `${Math.round(100 * share)} %`)));
  personView.replaceChildren(
    make("nav", { class: "steps" }, make("a", { href: "#" }, "All features")),
    make("h1", { tabindex: "-1" }, name ? `Person ${name}` : "Person"),
    make("p", { class: "note" }, `${plural(rows.length, "face")} of this person ${rows.length === 1 ? "is" : "are"} among the faces of this page.`),
    make("div", { class: "row" }, ...tiles),
    section("What fires on them", "Features in whose lists these faces are, with the activation as a share of the largest of all faces.", make("ul", { class: "near" }, ...lines)),
  );
  show(personView, `Person ${name}`);
}

// Why two faces match: the parts that the similarity is the sum of.
function showExplanation(index) {
  const one = data.explanations[index];
  const bar = (words, meaning, value, id) => {
    const length = Math.min(100, (100 * Math.abs(value)) / largest);
    const fill = make("i", { class: value < 0 ? "less" : null, style: `width:${length}%` });
    return make("div", { class: "bar" }, id === undefined ? make("span", {}, words) : make("a", { href: link(id) }, words), make("span", {}, meaning), fill, make("span", {}, (value > 0 ? "+" : "") + value.toFixed(3)));
  };
  const features = one.features.slice().sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution));
  const largest = Math.max(...features.slice(0, 1).map((part) => Math.abs(part.contribution)), Math.abs(one.constant), 1e-9);
  const rest = features.slice(24).reduce((sum, part) => sum + part.contribution, 0);
  const faces = one.rows.map((row, place) => row === null ? null : make("figure", {}, tile("face", placeOfRow.get(row), data.rows.length, [one.first, one.second][place]), make("figcaption", {}, [one.first, one.second][place])));
  explanationView.replaceChildren(
    make("nav", { class: "steps" }, make("a", { href: "#" }, "All features")),
    make("h1", { tabindex: "-1" }, one.accepted ? "Why these two faces match" : "Why these two faces do not match"),
    make("p", { class: "lead" }, `The similarity of ${one.first} and ${one.second} is ${one.similarity.toFixed(3)}; faces above ${one.threshold.toFixed(3)} are accepted as one person. It is the sum of these parts:`),
    make("div", { class: "row large" }, ...faces),
    make("div", {}, ...features.slice(0, 24).map((part) => bar(String(part.feature), part.reading || NO_MEANING, part.contribution, part.feature)),
      features.length > 24 ? bar("", `${features.length - 24} further features`, rest) : null,
      bar("", "what all decoded templates have in common", one.constant), bar("", "what the SAE leaves unexplained", one.unexplained)),
  );
  show(explanationView, "Explanation");
}
data.explanations.forEach((one, index) => {
  const nav = document.querySelector(".explained");
  nav.hidden = false;
  nav.append(make("a", { href: `#explanation-${index}` }, `Why ${one.first} and ${one.second} ${one.accepted ? "match" : "do not match"}`));
});

// Addresses: #feature-17, #person-NAME, #explanation-0; anything else is the list.
function show(view, title) {
  for (const one of views) one.hidden = one !== view;
  document.title = title;
  if (view === overview) { drawRows(); drawMap(); } else { window.scrollTo(0, 0); view.querySelector("h1").focus({ preventScroll: true }); }
}
// A page inside another one, as MLflow shows it, may not change its address; `here` is the address all the same.
let here = location.hash;
function go(address) {
  here = address;
  try { history.pushState(null, "", address || "#"); } catch { /* the address stays */ }
  route();
}
function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}
function route() {
  const [, kind, rest] = here.match(/^#(feature|explanation)-(\d+)$/) || here.match(/^#(person)-(.*)$/) || [];
  if (kind === "feature" && byId.has(Number(rest))) showFeature(byId.get(Number(rest)));
  else if (kind === "feature" && data.elsewhere[Number(rest)]) location.href = link(Number(rest));
  else if (kind === "person" && data.people.includes(decoded(rest))) showPerson(decoded(rest));
  else if (kind === "explanation" && data.explanations[Number(rest)]) showExplanation(Number(rest));
  else show(overview, "What the features of a face template mean");
}
for (const moved of ["hashchange", "popstate"]) window.addEventListener(moved, () => { if (here !== location.hash) { here = location.hash; route(); } });
document.addEventListener("click", (event) => {
  const address = event.target.closest?.("a")?.getAttribute("href");
  if (!address?.startsWith("#") || address === "#list" || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(address === "#" ? "" : address);
});
window.addEventListener("resize", () => { if (!overview.hidden) { drawMap(); drawRows(); } });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
document.querySelector(".find").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = field("go").value.trim(), id = /^\d+$/.test(typed) ? Number(typed) : NaN;
  if (byId.has(id) || data.elsewhere[id]) go(`#feature-${id}`);
  field("go").setCustomValidity(byId.has(id) || data.elsewhere[id] ? "" : "No feature that fires has this number.");
  field("go").reportValidity();
});
field("go").addEventListener("input", () => field("go").setCustomValidity(""));
document.addEventListener("keydown", (event) => {
  if (/INPUT|SELECT/.test(event.target.tagName) || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Escape" && overview.hidden) go("");
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && !featureView.hidden) {
    const next = shown[shown.findIndex((one) => here === `#feature-${one.id}`) + step];
    if (next) go(`#feature-${next.id}`);
  }
});
update();
route();
