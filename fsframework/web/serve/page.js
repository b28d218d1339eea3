// The page of `fsf serve`: swap the faces of two images. All requests go to the page's own server.
"use strict";

const at = (id) => document.getElementById(id);
const slots = { source: {}, target: {} }; // for each: file, faces, and number of the selected face
let info; // response of /api/info
let addresses = []; // object URLs of the last result's images, to be revoked

function element(name, properties, ...inside) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...inside);
  return node;
}

/** Send a request and return the JSON response. Throws an Error with a sentence if it fails. */
async function request(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: body === undefined ? "GET" : "POST", body });
  } catch (error) {
    throw new Error("The server does not answer. Is it still running?");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error || `The server answers ${answer.status}.`);
  return content;
}

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = text === "";
}

function setMessage(name, text, wrong = false) {
  const line = at(`${name}-says`);
  line.textContent = text;
  line.classList.toggle("wrong", wrong);
}

/** Return a note of the server as a sentence. */
function sentence(note) {
  return `${note[0].toUpperCase()}${note.slice(1)}.`;
}

/** Return the reason to reject a file before upload, or an empty string. */
function refusal(file) {
  const most = info ? info.file_bytes : Infinity;
  return file.size > most ? `It has more than ${Math.floor(most / 1e6)} MB; make it smaller.` : "";
}

/** Show an image in its slot and detect its faces. */
async function take(name, file) {
  const slot = (slots[name] = { file }); // a late response is dropped, because the slot was replaced
  const box = at(name);
  const frame = box.querySelector(".frame");
  const image = frame.querySelector("img");
  if (image.src) URL.revokeObjectURL(image.src);
  for (const old of frame.querySelectorAll("button")) old.remove();
  frame.hidden = true;
  box.querySelector(".drop").classList.remove("filled");
  if (name === "target") at("all-line").hidden = true;
  ready();
  const problem = refusal(file);
  if (problem) return setMessage(name, problem, true);
  setMessage(name, "Looking for faces …");
  image.src = URL.createObjectURL(file);
  try {
    const result = await request("/api/faces", file);
    if (slots[name] !== slot) return;
    slot.faces = result.faces;
    slot.notes = result.notes;
    slot.face = result.faces.find((face) => face.largest).number;
    show(name, result);
  } catch (error) {
    if (slots[name] === slot) setMessage(name, error.message.replace(/^picture: /, ""), true);
  }
  ready();
}

function show(name, result) {
  const frame = at(name).querySelector(".frame");
  frame.style.aspectRatio = `${result.width} / ${result.height}`;
  frame.style.maxWidth = `min(100%, calc(26rem * ${result.width / result.height}))`;
  for (const face of result.faces) frame.append(faceButton(name, face, result));
  frame.hidden = false;
  at(name).querySelector(".drop").classList.add("filled");
  if (name === "target") at("all-line").hidden = result.faces.length < 2;
  choose(name, slots[name].face);
}

function faceButton(name, face, { width, height }) {
  const [left, top, right, bottom] = face.box;
  const badge = element("span", { textContent: face.number });
  const button = element("button", { type: "button", className: "face" }, badge);
  button.setAttribute("aria-label", `Face ${face.number} of the ${name}`);
  button.style.left = `${(100 * left) / width}%`;
  button.style.top = `${(100 * top) / height}%`;
  button.style.width = `${(100 * (right - left)) / width}%`;
  button.style.height = `${(100 * (bottom - top)) / height}%`;
  for (const [x, y] of face.landmarks) {
    const dot = element("i", {});
    dot.style.left = `${(100 * (x - left)) / (right - left)}%`;
    dot.style.top = `${(100 * (y - top)) / (bottom - top)}%`;
    button.append(dot);
  }
  button.addEventListener("click", () => {
    if (name === "target") at("all").checked = false;
    choose(name, face.number);
  });
  return button;
}

/** Highlight the selected face, or all faces. */
function choose(name, number) {
  const slot = slots[name];
  const all = name === "target" && at("all").checked;
  slot.face = number;
  at(name).querySelectorAll("button.face").forEach((button, index) => {
    button.setAttribute("aria-pressed", all || slot.faces[index].number === number);
  });
  const count = slot.faces.length;
  const which = all ? "all are swapped" : `number ${number} is ${name === "source" ? "taken" : "swapped"}`;
  const found = count === 1 ? "One face was found." : `${count} faces were found; ${which}. Click another to change that.`;
  setMessage(name, [found, ...slot.notes.map(sentence)].join(" "));
}

function ready() {
  at("swap").disabled = !(slots.source.faces && slots.target.faces) || !at("working").hidden;
}

async function swap() {
  notice("");
  const form = new FormData();
  form.append("source", slots.source.file, "source");
  form.append("target", slots.target.file, "target");
  form.append("source_face", slots.source.face);
  form.append("face", at("all").checked && slots.target.faces.length > 1 ? "all" : slots.target.face);
  form.append("label", at("label").checked);
  form.append("consent", at("consent").value.trim());
  form.append("format", at("format").value);
  const started = Date.now();
  const showElapsed = () => {
    at("working-says").textContent = `Swapping … ${Math.floor((Date.now() - started) / 1000)} s`;
  };
  at("working").hidden = false;
  showElapsed();
  const clock = setInterval(showElapsed, 1000);
  ready();
  try {
    showResult(await request("/api/swap/details", form), slots.target.file);
  } catch (error) {
    notice(error.message);
  }
  clearInterval(clock);
  at("working").hidden = true;
  ready();
}

/** Return an object URL of bytes in base64. */
function addressOf(base64, type) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  addresses.push(URL.createObjectURL(new Blob([bytes], { type })));
  return addresses.at(-1);
}

function showResult(result, target) {
  for (const address of addresses) URL.revokeObjectURL(address);
  addresses = [URL.createObjectURL(target)];
  at("before").src = addresses[0];
  const address = addressOf(result.result, result.type);
  at("after").src = address;
  at("download").href = address;
  at("download").download = result.file_name;
  const size = Math.ceil((result.result.length * 0.75) / 1000);
  at("download").textContent = `Download ${result.file_name}`;
  const seconds = result.seconds.toFixed(1);
  at("marked").textContent = `${result.width} × ${result.height} pixels, ${size} kB, made in ${seconds} s. `
    + "Marked as synthetic by a signed C2PA manifest, XMP and an invisible watermark; fsf verify reads them.";
  at("soft").textContent = result.note === null ? "" : sentence(result.note);
  at("soft").hidden = result.note === null;
  at("faces").replaceChildren(...result.faces.map((face) => measures(face, result)));
  drawMasks(result);
  at("result").hidden = false;
  at("result-title").focus({ preventScroll: true });
  at("result").scrollIntoView({ block: "start" });
}

function measures(face, result) {
  const crops = [["Source", result.source], ["Target", face.target], ["Swap", face.swap], ["Mask", face.mask]];
  const pictures = crops.map(([name, png]) => element("figure", {},
    element("figcaption", { textContent: name }),
    element("img", { alt: `${name}, face ${face.number}`, src: addressOf(png, "image/png") })));
  const pose = face.pose_degrees === null ? "not found again" : `${face.pose_degrees.toFixed(1)}°`;
  const rows = [
    ["Likeness to source", face.cosine_to_source.toFixed(2)],
    ["Likeness to target", face.cosine_to_target.toFixed(2)],
    ["Change of pose", pose],
  ];
  const list = rows.flatMap(([name, value]) => [
    element("dt", { textContent: name }), element("dd", { textContent: value })]);
  if (result.faces.length > 1) list.unshift(
    element("dt", { textContent: "Face" }), element("dd", { textContent: face.number }));
  return element("div", { className: "seen" },
    element("div", { className: "crops" }, ...pictures), element("dl", {}, ...list));
}

/** Draw the blending mask of each swap over the result. */
async function drawMasks(result) {
  const canvas = at("masks");
  const scale = Math.min(1, 1600 / Math.max(result.width, result.height));
  canvas.width = Math.round(result.width * scale);
  canvas.height = Math.round(result.height * scale);
  const context = canvas.getContext("2d");
  for (const face of result.faces) {
    const image = new Image();
    image.src = addressOf(face.mask, "image/png");
    await image.decode();
    const [[a, c, e], [b, d, f]] = face.matrix; // maps pixel centres; a canvas counts from pixel corners
    const toCrop = new DOMMatrix([a, b, c, d, e + 0.5 - (a + c) / 2, f + 0.5 - (b + d) / 2]);
    context.setTransform(new DOMMatrix().scale(scale).multiply(toCrop.inverse()));
    context.drawImage(tinted(image), 0, 0);
  }
}

/** Return a grey mask as a colour overlay, visible where the mask is white. */
function tinted(image) {
  const canvas = element("canvas", { width: image.width, height: image.height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height);
  for (let offset = 0; offset < pixels.data.length; offset += 4) {
    const level = pixels.data[offset];
    pixels.data.set([255, 120, 40, 0.6 * level], offset);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

async function start() {
  for (const name of ["source", "target"]) {
    const drop = at(name).querySelector(".drop");
    const input = at(`${name}-file`);
    input.addEventListener("change", () => { if (input.files.length) take(name, input.files[0]); });
    for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, () => drop.classList.add("over"));
    for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      if (event.dataTransfer.files.length) take(name, event.dataTransfer.files[0]);
    });
  }
  for (const kind of ["dragover", "drop"]) {
    window.addEventListener(kind, (event) => event.preventDefault()); // files dropped elsewhere must not replace the page
  }
  at("all").addEventListener("change", () => choose("target", slots.target.face));
  at("show-masks").addEventListener("change", () => { at("masks").hidden = !at("show-masks").checked; });
  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!at("swap").disabled) swap();
  });
  if (location.search) history.replaceState(null, "", location.pathname); // the token is in a cookie now
  try {
    info = await request("/api/info");
    at("about").textContent = `Model ${info.model || "without a name"}, ${info.size} px crops, `
      + `fsframework ${info.version}. Pictures up to ${Math.floor(info.file_bytes / 1e6)} MB `
      + `and ${Math.floor(info.pixels / 1e6)} megapixels. `
      + "They are sent to this server only, and deleted after the response.";
  } catch (error) {
    notice(error.message);
  }
}

start();
