// The page of `fsf serve`: two pictures in, a marked swap out. All is asked of the server that the page came from.
"use strict";

const at = (id) => document.getElementById(id);
const slots = { source: {}, target: {} }; // of each: file, faces, and the number of the chosen one
let info; // what the server says of itself
let addresses = []; // of the pictures of the last result, to be given back

function element(name, properties, ...inside) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...inside);
  return made;
}

/** Ask the server: what it says. Throws an Error with a sentence if it refuses or does not answer. */
async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: body === undefined ? "GET" : "POST", body });
  } catch (error) {
    throw new Error("The server does not answer. Is it still running?");
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error || `The server answers ${answer.status}.`);
  return said;
}

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = text === "";
}

function say(name, text, wrong = false) {
  const line = at(`${name}-says`);
  line.textContent = text;
  line.classList.toggle("wrong", wrong);
}

/** Why a file is not sent at all, or nothing. */
function refusal(file) {
  const most = info ? info.file_bytes : Infinity;
  return file.size > most ? `It has more than ${Math.floor(most / 1e6)} MB; make it smaller.` : "";
}

/** Show a picture in its place and ask for its faces. */
async function take(name, file) {
  const slot = (slots[name] = { file }); // an answer that comes late finds another slot there
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
  if (problem) return say(name, problem, true);
  say(name, "Looking for faces …");
  image.src = URL.createObjectURL(file);
  try {
    const found = await ask("/api/faces", file);
    if (slots[name] !== slot) return;
    slot.faces = found.faces;
    slot.face = found.faces.find((face) => face.largest).number;
    show(name, found);
  } catch (error) {
    if (slots[name] === slot) say(name, error.message.replace(/^picture: /, ""), true);
  }
  ready();
}

function show(name, found) {
  const frame = at(name).querySelector(".frame");
  frame.style.aspectRatio = `${found.width} / ${found.height}`;
  frame.style.maxWidth = `min(100%, calc(26rem * ${found.width / found.height}))`;
  for (const face of found.faces) frame.append(faceButton(name, face, found));
  frame.hidden = false;
  at(name).querySelector(".drop").classList.add("filled");
  if (name === "target") at("all-line").hidden = found.faces.length < 2;
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

/** Mark the chosen face, or all of them. */
function choose(name, number) {
  const slot = slots[name];
  const all = name === "target" && at("all").checked;
  slot.face = number;
  at(name).querySelectorAll("button.face").forEach((button, place) => {
    button.setAttribute("aria-pressed", all || slot.faces[place].number === number);
  });
  const count = slot.faces.length;
  const which = all ? "all are swapped" : `number ${number} is ${name === "source" ? "taken" : "swapped"}`;
  say(name, count === 1 ? "One face was found." : `${count} faces were found; ${which}. Click another to change that.`);
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
  const began = Date.now();
  const tell = () => { at("working-says").textContent = `Swapping … ${Math.floor((Date.now() - began) / 1000)} s`; };
  at("working").hidden = false;
  tell();
  const clock = setInterval(tell, 1000);
  ready();
  try {
    showResult(await ask("/api/swap/details", form), slots.target.file);
  } catch (error) {
    notice(error.message);
  }
  clearInterval(clock);
  at("working").hidden = true;
  ready();
}

/** An address under which the page finds bytes that came in base64. */
function addressOf(base64, type) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  addresses.push(URL.createObjectURL(new Blob([bytes], { type })));
  return addresses.at(-1);
}

function showResult(made, target) {
  for (const address of addresses) URL.revokeObjectURL(address);
  addresses = [URL.createObjectURL(target)];
  at("before").src = addresses[0];
  const address = addressOf(made.result, made.type);
  at("after").src = address;
  at("download").href = address;
  at("download").download = made.file_name;
  const size = Math.ceil((made.result.length * 0.75) / 1000);
  at("download").textContent = `Download ${made.file_name}`;
  const took = made.seconds.toFixed(1);
  at("marked").textContent = `${made.width} × ${made.height} pixels, ${size} kB, made in ${took} s. `
    + "Marked as synthetic by a signed C2PA manifest, XMP and an invisible watermark; fsf verify reads them.";
  at("faces").replaceChildren(...made.faces.map((face) => seen(face, made)));
  drawMasks(made);
  at("result").hidden = false;
  at("result-title").focus({ preventScroll: true });
  at("result").scrollIntoView({ block: "start" });
}

function seen(face, made) {
  const crops = [["Source", made.source], ["Target", face.target], ["Swap", face.swap], ["Mask", face.mask]];
  const pictures = crops.map(([name, png]) => element("figure", {},
    element("figcaption", { textContent: name }),
    element("img", { alt: `${name}, face ${face.number}`, src: addressOf(png, "image/png") })));
  const pose = face.pose_degrees === null ? "not found again" : `${face.pose_degrees.toFixed(1)}°`;
  const measures = [
    ["Likeness to source", face.cosine_to_source.toFixed(2)],
    ["Likeness to target", face.cosine_to_target.toFixed(2)],
    ["Change of pose", pose],
  ];
  const list = measures.flatMap(([name, value]) => [
    element("dt", { textContent: name }), element("dd", { textContent: value })]);
  if (made.faces.length > 1) list.unshift(
    element("dt", { textContent: "Face" }), element("dd", { textContent: face.number }));
  return element("div", { className: "seen" },
    element("div", { className: "crops" }, ...pictures), element("dl", {}, ...list));
}

/** Lay what was taken of each swap over the result. */
async function drawMasks(made) {
  const canvas = at("masks");
  const scale = Math.min(1, 1600 / Math.max(made.width, made.height));
  canvas.width = Math.round(made.width * scale);
  canvas.height = Math.round(made.height * scale);
  const page = canvas.getContext("2d");
  for (const face of made.faces) {
    const image = new Image();
    image.src = addressOf(face.mask, "image/png");
    await image.decode();
    const [[a, c, e], [b, d, f]] = face.matrix; // between middles of pixels, where a canvas counts from their corners
    const toCrop = new DOMMatrix([a, b, c, d, e + 0.5 - (a + c) / 2, f + 0.5 - (b + d) / 2]);
    page.setTransform(new DOMMatrix().scale(scale).multiply(toCrop.inverse()));
    page.drawImage(tinted(image), 0, 0);
  }
}

/** A grey mask as a colour that shows where the mask is white. */
function tinted(image) {
  const made = element("canvas", { width: image.width, height: image.height });
  const page = made.getContext("2d");
  page.drawImage(image, 0, 0);
  const pixels = page.getImageData(0, 0, image.width, image.height);
  for (let place = 0; place < pixels.data.length; place += 4) {
    const level = pixels.data[place];
    pixels.data.set([255, 120, 40, 0.6 * level], place);
  }
  page.putImageData(pixels, 0, 0);
  return made;
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
    window.addEventListener(kind, (event) => event.preventDefault()); // a picture dropped beside stays here
  }
  at("all").addEventListener("change", () => choose("target", slots.target.face));
  at("show-masks").addEventListener("change", () => { at("masks").hidden = !at("show-masks").checked; });
  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!at("swap").disabled) swap();
  });
  if (location.search) history.replaceState(null, "", location.pathname); // the token is in a cookie now
  try {
    info = await ask("/api/info");
    at("about").textContent = `Model ${info.model || "without a name"}, ${info.size} px crops, `
      + `fsframework ${info.version}. Pictures up to ${Math.floor(info.file_bytes / 1e6)} MB `
      + `and ${Math.floor(info.pixels / 1e6)} megapixels. `
      + "They go to this server alone, and are forgotten once they are answered.";
  } catch (error) {
    notice(error.message);
  }
}

start();
