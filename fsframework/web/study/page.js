// The participant's page of a user study. Everything is asked of the server that the page came from.
//
// The browser keeps, under the study's id: the token, the choices of the task at hand (`draft`), and answers that the
// server has not confirmed (`unsent`), so that a reload, a restart or a lost connection loses nothing.
"use strict";

const PATIENCE = 15000; // milliseconds for an answer of the server, and the longest pause before another try
const VIEWS = ["consent", "trial", "end", "withdrawn"];
const at = (id) => document.getElementById(id);

let study; // what the server says of the study
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

/** Show one part of the page, and let those who do not see it hear its heading. */
function view(name) {
  for (const each of VIEWS) at(each).hidden = each !== name;
  at("footer").hidden = saved.token === undefined;
  window.scrollTo(0, 0);
  document.querySelector(`#${name} h1`).focus({ preventScroll: true });
}

/** Ask the server until it answers: its status and what it says. Its own failures and lost connections are waited out. */
async function ask(method, path, body) {
  for (let pause = 1000; ; pause = Math.min(2 * pause, PATIENCE)) {
    try {
      const headers = { "Content-Type": "application/json" };
      if (saved.token !== undefined) headers.Authorization = `Bearer ${saved.token}`;
      const settings = { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(PATIENCE) };
      const answer = await fetch(path, settings);
      if (answer.status < 500) {
        const said = await answer.json();
        notice("");
        return { status: answer.status, said };
      }
    } catch (error) {
      // No connection, no answer in time, or a cut one.
    }
    notice("The study's server does not answer. Your answers are kept here; trying again …");
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

async function start() {
  study = (await ask("GET", "/api/study")).said;
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
  const { status, said } = await ask("POST", "/api/participants", { agreed: true });
  at("agree").disabled = false;
  if (status !== 201) {
    notice(said.error);
    return;
  }
  saved = { token: said.token };
  save();
  show(said);
}

/** Ask for the state of this participant, and show it. */
async function go(method, path, body) {
  const { status, said } = await ask(method, path, body);
  if (saved.token === undefined) return; // withdrawn meanwhile
  delete saved.unsent;
  if (status === 401) {
    forget();
    showConsent();
    notice("The study does not know you any more. If you did not withdraw, you may begin again.");
  } else if (status !== 200) {
    save();
    await go("GET", "/api/trial");
    notice(said.error);
  } else {
    save();
    show(said);
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
  const made = Object.assign(document.createElement(name), properties);
  made.append(...inside);
  return made;
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
  task.options.forEach((option, place) => {
    const input = element("input", { type: "radio", name: question.id, value: option, required: true });
    const label = element("span", { className: "number", textContent: place + 1 });
    label.setAttribute("aria-hidden", "true"); // the picture says it
    choices.append(element("label", { className: "option" }, input, picture(option, `Result ${place + 1}`), label));
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

/** A number key chooses in the question that has the focus, or else in the first one without an answer. */
function choose(place) {
  const set = document.activeElement.closest("fieldset") || unanswered();
  const input = set && set.querySelectorAll("input")[place - 1];
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
  // A tap on a picture, not a key: bring the next question into view, once the choice is made.
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
  await ask("DELETE", "/api/participants");
  forget();
  view("withdrawn");
});

start();
