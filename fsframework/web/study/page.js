// The participant's page of a user study. All requests go to the page's own server.
//
// The browser stores, under the study's id: the token, the choices of the current task (`draft`), and answers that the
// server has not confirmed (`unsent`). A reload, a restart or a lost connection therefore loses nothing.
"use strict";

const PATIENCE = 15000; // milliseconds: timeout of a request, and longest pause before a retry
const VIEWS = ["consent", "trial", "end", "withdrawn"];
const at = (id) => document.getElementById(id);

let study; // response of /api/study
let saved = {}; // token, draft, unsent

function save() {
  localStorage.setItem(study.id, JSON.stringify(saved));
}

function forget() {
  saved = {};
  localStorage.removeItem(study.id);
}

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = text === "";
}

/** Show one part of the page, and focus its heading for screen readers. */
function view(name) {
  for (const each of VIEWS) at(each).hidden = each !== name;
  at("footer").hidden = saved.token === undefined;
  window.scrollTo(0, 0);
  document.querySelector(`#${name} h1`).focus({ preventScroll: true });
}

/** Send a request and return status and JSON content. Server errors and lost connections are retried. */
async function request(method, path, body) {
  for (let pause = 1000; ; pause = Math.min(2 * pause, PATIENCE)) {
    try {
      const headers = { "Content-Type": "application/json" };
      if (saved.token !== undefined) headers.Authorization = `Bearer ${saved.token}`;
      const settings = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(PATIENCE) };
      const answer = await fetch(path, settings);
      if (answer.status < 500) {
        const content = await answer.json();
        notice("");
        return { status: answer.status, content };
      }
    } catch (error) {
      // No connection, a timeout, or a truncated response.
    }
    notice("The study's server does not answer. Your answers are kept here; trying again …");
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

async function start() {
  study = (await request("GET", "/api/study")).content;
  try {
    saved = JSON.parse(localStorage.getItem(study.id) || "{}");
  } catch (error) {
    notice("This page needs the browser's storage, to go on where you stopped. Please allow it, and load the page again.");
    return;
  }
  if (saved.token === undefined) showConsent();
  else if (saved.unsent !== undefined) await send();
  else await go("GET", "/api/trial");
}

function showConsent() {
  at("paragraphs").replaceChildren(...study.consent.map((text) => element("p", { textContent: text })));
  at("amount").textContent = `There are ${study.trials} tasks of ${study.questions.length} questions.`;
  view("consent");
}

async function agree() {
  at("agree").disabled = true;
  const { status, content } = await request("POST", "/api/participants", { agreed: true });
  at("agree").disabled = false;
  if (status !== 201) {
    notice(content.error);
    return;
  }
  saved = { token: content.token };
  save();
  show(content);
}

/** Request the participant's state, and show it. */
async function go(method, path, body) {
  const { status, content } = await request(method, path, body);
  if (saved.token === undefined) return; // withdrawn meanwhile
  delete saved.unsent;
  if (status === 401) {
    forget();
    showConsent();
    notice("Your participation was not found. If you did not withdraw, you may begin again.");
  } else if (status !== 200) {
    save();
    await go("GET", "/api/trial");
    notice(content.error);
  } else {
    save();
    show(content);
  }
}

async function send() {
  at("next").disabled = true;
  await go("POST", "/api/answers", saved.unsent);
  at("next").disabled = false;
}

function show(state) {
  if (state.next === null) {
    view("end");
    return;
  }
  at("where").textContent = `Task ${state.answered + 1} of ${state.trials}`;
  at("progress").max = state.trials;
  at("progress").value = state.answered;
  at("questions").replaceChildren(...study.questions.map((question, number) => fieldset(question, number, state.next)));
  at("form").dataset.place = state.next.place;
  at("next").textContent = state.answered + 1 === state.trials ? "Finish" : "Next task";
  if (saved.draft !== undefined && saved.draft.place === state.next.place) {
    for (const input of at("form").querySelectorAll("input")) {
      input.checked = saved.draft.choices[input.name] === input.value;
    }
  }
  view("trial");
}

function element(name, properties, ...inside) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...inside);
  return node;
}

function picture(name, alt) {
  const image = element("img", { alt, width: study.side, height: study.side, src: `/pictures/${name}` });
  image.addEventListener("error", () => setTimeout(() => (image.src = `/pictures/${name}`), 2000));
  return image;
}

function fieldset(question, number, task) {
  const choices = element("div", { className: "choices" });
  if (question.beside !== null) {
    const name = question.beside === "source" ? "Source" : "Target";
    const caption = element("figcaption", { textContent: name });
    choices.append(element("figure", { className: "reference" }, picture(task[question.beside], name), caption));
  }
  task.options.forEach((option, index) => {
    const input = element("input", { type: "radio", name: question.id, value: option, required: true });
    const label = element("span", { className: "number", textContent: index + 1 });
    label.setAttribute("aria-hidden", "true"); // the image's alt text holds the number
    choices.append(element("label", { className: "option" }, input, picture(option, `Result ${index + 1}`), label));
  });
  const count = element("span", { textContent: `${number + 1} of ${study.questions.length}: ` });
  const legend = element("legend", {}, count, question.text);
  return element("fieldset", { tabIndex: -1 }, legend, choices);
}

const answered = (set) => set.querySelector("input:checked") !== null;
const unanswered = () => [...at("questions").children].find((set) => !answered(set));

function keepDraft() {
  const choices = Object.fromEntries(new FormData(at("form")));
  saved.draft = { place: Number(at("form").dataset.place), choices };
  save();
}

/** Select an option in the focused question, or else in the first one without an answer. */
function choose(number) {
  const set = document.activeElement.closest("fieldset") || unanswered();
  const input = set && set.querySelectorAll("input")[number - 1];
  if (!input || at("next").disabled) return;
  input.checked = true;
  keepDraft();
  const next = unanswered() || at("next");
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (at("trial").hidden || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (/^[1-9]$/.test(event.key)) {
    choose(Number(event.key));
  } else if (event.key === "Enter" && event.target.closest("button") === null && !at("next").disabled) {
    event.preventDefault();
    at("form").requestSubmit(at("next"));
  }
});

at("agree").addEventListener("click", agree);
at("form").addEventListener("change", keepDraft);
at("form").addEventListener("click", (event) => {
  // A click on an image, not a key press: scroll to the next question once the choice is set.
  if (event.target.closest("label") === null || event.target.matches("input")) return;
  setTimeout(() => (unanswered() || at("next")).scrollIntoView({ block: "nearest" }));
});
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  keepDraft();
  saved.unsent = saved.draft;
  delete saved.draft;
  save();
  send();
});
at("withdraw").addEventListener("click", async () => {
  if (!confirm("Withdraw from the study and delete all your answers?")) return;
  await request("DELETE", "/api/participants");
  forget();
  view("withdrawn");
});

start();
