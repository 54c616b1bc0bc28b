// The playground: asks the predictor that serves it, and shows an episode as it happens.
//
// Questions, passages, evidence and answers are other people's text. They enter the page
// through textContent and text nodes alone, so whatever they hold stays text; the markup is
// all in index.html's templates. Addresses are relative to this file, so that the page also
// works behind a gateway that adds a prefix.

const TOKEN = "exsearch-token";

/** What went wrong, for the person who asked: what it was, and what to do. */
class Problem extends Error {
  constructor(title, advice, status = 0) {
    super(title);
    this.advice = advice;
    this.status = status;
  }
}

// ---------------------------------------------------------------- the stream

/** The next piece of a body. Raises Problem when the network is gone, AbortError when stopped. */
async function piece(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(
      "The connection was lost.",
      "What arrived so far is shown and may be incomplete. Ask again.",
    );
  }
}

/**
 * The data of each server-sent event in `body`, in order, however its bytes are cut.
 * A comment yields nothing; an event whose closing blank line never came is dropped.
 */
export async function* serverEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder(); // keeps half a character until its other half arrives
  let rest = "";
  let data = [];
  try {
    for (let ended = false; !ended; ) {
      const { value, done } = await piece(reader);
      ended = done;
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop();
      for (const line of lines.map((each) => each.replace(/\r$/, ""))) {
        if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(5).replace(/^ /, ""));
        }
      }
    }
  } finally {
    reader.releaseLock();
  }
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new Problem("The answer cannot be read.", "What came is not this server's. Ask again.");
  }
}

// ---------------------------------------------------------------- highlighting

const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });

function words(text) {
  const found = [...segmenter.segment(text)].filter((part) => part.isWordLike);
  return found.map(({ segment, index }) => ({
    word: segment.toLowerCase(),
    start: index,
    end: index + segment.length,
    common: segment === segment.toLowerCase() && segment !== segment.toUpperCase(),
  }));
}

/**
 * Where `text` says what `evidence` says: [start, end) offsets of the longest runs of words
 * that both have. Three words make a run; two do where neither is a lower-case word, which
 * leaves names and dates in and "of the" out.
 */
export function sharedRuns(text, evidence) {
  const here = words(text);
  const there = words(evidence).map(({ word }) => word);
  const places = new Map();
  there.forEach((word, at) => places.set(word, [...(places.get(word) ?? []), at]));
  const runs = [];
  for (let at = 0; at < here.length; ) {
    let longest = 0;
    for (const from of places.get(here[at].word) ?? []) {
      let size = 1;
      while (here[at + size] && here[at + size].word === there[from + size]) size += 1;
      longest = Math.max(longest, size);
    }
    const telling = longest === 2 && !here[at].common && !here[at + 1].common;
    if (longest > 2 || telling) runs.push([here[at].start, here[at + longest - 1].end]);
    at += longest > 2 || telling ? longest : 1;
  }
  return runs;
}

// ---------------------------------------------------------------- the page's own tools

const $ = (id) => document.getElementById(id);
const short = (digest) => String(digest ?? "").replace(/^sha256:/, "").slice(0, 12);
const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** A copy of the template `id`: its one element, and its `data-part` elements by name. */
function copy(id) {
  const root = $(id).content.firstElementChild.cloneNode(true);
  const parts = {};
  for (const part of root.querySelectorAll("[data-part]")) parts[part.dataset.part] = part;
  return { root, parts };
}

function show(element, text) {
  if (text !== undefined) element.textContent = text;
  element.hidden = false;
}

// ---------------------------------------------------------------- the predictor

function address(path) {
  return new URL(`../${path}`, import.meta.url);
}

/** Fetch `path` with the token, if there is one. Raises Problem unless the status is 200. */
async function call(path, body, signal) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const options = { headers, signal, cache: "no-store" };
  if (body) {
    headers["content-type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let response;
  try {
    response = await fetch(address(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(
      "The server cannot be reached.",
      "Check your connection, and that the server is running. Then ask again.",
    );
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

function sentence(text) {
  const said = String(text ?? "").trim().replace(/^./u, (first) => first.toUpperCase());
  return said && !/[.!?…]$/.test(said) ? `${said}.` : said;
}

async function refusal(response) {
  const { status, headers } = response;
  const { error } = await response.json().catch(() => ({}));
  const said = sentence(error?.message);
  const seconds = Number(headers.get("retry-after"));
  const when = seconds > 0 ? `in ${count(Math.ceil(seconds), "second")}` : "in a moment";
  const id = headers.get("x-request-id");
  const known = {
    401: ["This server asks for an access token.", "Enter the token above."],
    404: ["The server does not know this.", said],
    429: ["The server is busy: too many questions are waiting.", `Ask again ${when}.`],
    503: ["The agent is not ready.", `${said} It may be starting or closing: ask again ${when}.`],
  };
  const other =
    status < 500
      ? ["The server refused the question.", said]
      : ["The server failed.", `${said} Ask again; if it stays, tell whoever runs the server.`];
  const [title, advice] = known[status] ?? other;
  const named = status >= 500 && id ? `${advice} The request was ${id}.` : advice;
  return new Problem(`${title} (${status})`, named.trim(), status);
}

const CURES = {
  deadline: "It took longer than the server allows. Allow fewer searches under Options.",
  token_budget: "It needed more tokens than the server allows. Allow fewer searches or passages.",
  too_long: "What it read no longer fitted into the model. Allow fewer searches or passages.",
  malformed: "The model lost its thread. Put the question in other words.",
  empty_answer: "The model gave an empty answer. Put the question in other words.",
  retriever: "The passage index did not answer. Ask again in a moment.",
  engine: "The model did not answer. Ask again in a moment.",
  closing: "The server is closing. Ask again in a moment.",
};

function failure({ message, type, code }, id) {
  const cure = CURES[code] ?? CURES[type] ?? "Ask again, or put the question in other words.";
  const advice = [sentence(message), cure, id ? `The request was ${id}.` : ""];
  return new Problem("The agent could not finish.", advice.filter(Boolean).join(" "));
}

// ---------------------------------------------------------------- one search step

class Passage {
  constructor({ pid, title, text, score }) {
    this.pid = String(pid);
    this.text = text ?? "";
    Object.assign(this, copy("passage"));
    this.parts.title.textContent = title || "Untitled passage";
    this.parts.text.textContent = this.text;
    if (typeof score === "number") this.parts.score.textContent = `score ${score.toFixed(2)}`;
  }

  get details() {
    return this.root.querySelector("details");
  }

  highlight(evidence) {
    const pieces = [];
    let last = 0;
    for (const [start, end] of sharedRuns(this.text, evidence)) {
      const mark = document.createElement("mark");
      mark.textContent = this.text.slice(start, end);
      pieces.push(this.text.slice(last, start), mark);
      last = end;
    }
    this.parts.text.replaceChildren(...pieces, this.text.slice(last));
    this.parts["evidence-tag"].hidden = !pieces.length;
  }

  /** Open it, wherever it is folded away, and go there. */
  jump() {
    for (let box = this.details; box; box = box.parentElement.closest("details")) box.open = true;
    this.details.firstElementChild.focus({ preventScroll: true });
    this.root.scrollIntoView({ block: "center" });
  }
}

class Step {
  constructor(number, query) {
    Object.assign(this, copy("step"));
    this.passages = [];
    this.kept = [];
    this.parts.number.textContent = `Search ${number}`;
    this.parts.query.textContent = query;
  }

  setPassages(found) {
    this.passages = found.map((each) => new Passage(each));
    this.parts.none.hidden = found.length > 0;
    this.arrange([], `${count(found.length, "passage")} found`);
  }

  /** `positions` count from 1, best first. */
  setKept(positions) {
    this.kept = positions.map((n) => this.passages[n - 1]).filter(Boolean);
    const left = this.passages.length - this.kept.length;
    const told = this.kept.length
      ? `${count(left, "more passage")} found`
      : `${count(left, "passage")} found, none kept`;
    this.arrange(this.kept, told);
    if (this.evidence) this.setEvidence(this.evidence);
  }

  arrange(kept, told) {
    const focused = document.activeElement;
    const rest = this.passages.filter((each) => !kept.includes(each));
    for (const each of this.passages) each.parts["kept-tag"].hidden = !kept.includes(each);
    this.parts.kept.replaceChildren(...kept.map((each) => each.root));
    this.parts.kept.hidden = !kept.length;
    this.parts.rest.replaceChildren(...rest.map((each) => each.root));
    this.parts["found-text"].textContent = told;
    this.parts.found.hidden = !rest.length;
    if (this.root.contains(focused)) focused.focus({ preventScroll: true }); // moving drops it
  }

  setEvidence(text) {
    this.evidence = text;
    show(this.parts.evidence, text);
    show(this.parts["evidence-box"]);
    for (const each of this.kept) each.highlight(text);
  }

  setRepair(text) {
    show(this.parts.repairs, `The model was asked to write again: ${sentence(text)}`);
  }
}

// ---------------------------------------------------------------- one episode

/** One model's episode on the page; `say` tells the status line where it stands. */
class Run {
  constructor(model, say) {
    Object.assign(this, copy("run"));
    this.model = model;
    this.say = say;
    this.steps = new Map();
    this.content = "";
    this.doing("Reading the question…");
  }

  setName(name, digest) {
    this.parts.name.textContent = name;
    if (digest) show(this.parts.digest, short(digest));
  }

  doing(text) {
    this.parts.doing.textContent = text;
    this.parts.doing.hidden = !text;
  }

  /** Ask, and show what arrives until it ends. Raises nothing: problems are shown. */
  async follow(body, signal) {
    try {
      const response = await call("openai/v1/chat/completions", body, signal);
      this.id = response.headers.get("x-request-id");
      await this.read(response.body);
    } catch (error) {
      if (signal.aborted) return this.stop();
      if (!(error instanceof Problem)) throw error;
      this.fail(error);
      return error;
    }
  }

  async read(stream) {
    for await (const data of serverEvents(stream)) {
      if (data === "[DONE]") return;
      this.take(parse(data));
    }
    throw new Problem(
      "The answer broke off.",
      "The server ended it early. What arrived so far is shown and may be incomplete. Ask again.",
    );
  }

  take(message) {
    const { event, summary, request_id: id } = message.exsearch ?? {};
    this.id = id ?? message.id ?? this.id;
    if (message.error) throw failure(message.error, this.id);
    if (event) this.handle(event);
    this.content += message.choices?.[0]?.delta?.content ?? "";
    if (this.content) this.setAnswer(this.content);
    if (summary) this.finish(summary);
  }

  handle({ kind, step, text, passages, kept }) {
    const at = this.steps.get(step);
    if (kind === "query") {
      this.addStep(step, text);
      this.say(`Searching: ${text}`);
      this.doing("Searching…");
    } else if (kind === "passages") {
      at?.setPassages(passages);
      this.doing("Choosing what helps…");
    } else if (kind === "kept") {
      at?.setKept(kept);
      this.doing("Reading what was kept…");
    } else if (kind === "evidence") {
      at?.setEvidence(text);
      this.doing("Deciding: search on, or answer…");
    } else if (kind === "repair") {
      at?.setRepair(text);
    } else if (kind === "answer") {
      this.setAnswer(text);
    }
  }

  addStep(number, query) {
    const step = new Step(number, query);
    this.steps.set(number, step);
    this.parts.steps.append(step.root);
    return step;
  }

  setAnswer(text) {
    if (text === this.answer) return;
    this.answer = text;
    show(this.parts.answer, text);
    show(this.parts["answer-card"]);
    this.doing("");
    this.say(`Answer: ${text}`);
  }

  finish(summary) {
    this.id = summary.request_id ?? this.id;
    const remarks = [];
    if (summary.forced) remarks.push("It had used all its searches and was made to answer.");
    if (summary.repairs) remarks.push(`It was asked to write again ${count(summary.repairs, "time")}.`);
    if (remarks.length) show(this.parts.remark, remarks.join(" "));
    this.cite(summary.citations ?? []);
    this.tell(summary);
    this.finished = true;
  }

  cite(citations) {
    const seen = new Set();
    for (const { step, pid, title } of citations) {
      if (seen.has(`${step} ${pid}`)) continue;
      seen.add(`${step} ${pid}`);
      const passage = this.steps.get(step)?.passages.find((each) => each.pid === String(pid));
      const entry = document.createElement("li");
      const name = document.createElement(passage ? "button" : "span");
      name.textContent = title || "Untitled passage";
      if (passage) {
        name.type = "button";
        name.className = "link";
        name.addEventListener("click", () => passage.jump());
      }
      const where = document.createElement("span");
      where.className = "soft";
      where.textContent = `search ${step}`;
      entry.append(name, " ", where);
      this.parts.citations.append(entry);
      show(this.parts.sources);
    }
  }

  tell({ seconds = {}, tokens = {} }) {
    const time = (value) => `${(value ?? 0).toFixed(2)} s`;
    const number = (value) => (value ?? 0).toLocaleString("en");
    this.parts.time.textContent =
      `Took ${time(seconds.total)}: waiting ${time(seconds.waiting)}, ` +
      `engine ${time(seconds.engine)}, retriever ${time(seconds.retriever)}`;
    this.parts.tokens.textContent =
      `Read ${number(tokens.prompt)} tokens (${number(tokens.cached)} cached), ` +
      `wrote ${number(tokens.output)}`;
    this.parts.request.textContent = this.id ?? "";
    show(this.parts.figures);
  }

  fail(problem) {
    this.doing("");
    show(this.parts["problem-title"], problem.message);
    show(this.parts["problem-text"], problem.advice);
    show(this.parts.problem);
    this.say(`${problem.message} ${problem.advice}`);
  }

  stop() {
    this.doing("Stopped. What arrived so far is shown.");
    this.parts.doing.classList.add("still");
    this.say("Stopped.");
  }
}

// ---------------------------------------------------------------- feedback

/** A form under `run`'s answer; `kept` says whether the server keeps what is sent. */
function offerFeedback(run, kept) {
  const { root, parts } = copy("feedback");
  const thumbs = [...root.querySelectorAll("[data-verdict]")];
  let verdict = null;
  parts.policy.textContent = kept
    ? "This server keeps feedback, with the question and the answer, to train on."
    : "This server does not keep feedback: it is counted, nothing else.";
  parts["gold-box"].hidden = !kept; // nobody should write what is thrown away
  for (const thumb of thumbs) {
    thumb.addEventListener("click", () => {
      verdict = thumb.dataset.verdict;
      for (const each of thumbs) each.setAttribute("aria-pressed", String(each === thumb));
      show(parts.more);
    });
  }
  root.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!verdict || parts.fields.disabled) return;
    const gold = parts.gold.value.trim();
    const body = { request_id: run.id, verdict, ...(gold && kept ? { answers: [gold] } : {}) };
    await sendFeedback(body, parts);
  });
  run.parts["answer-card"].append(root);
}

async function sendFeedback(body, parts) {
  parts.fields.disabled = true;
  try {
    const answer = await (await call("feedback", body)).json();
    parts.fields.hidden = true;
    parts.policy.hidden = true;
    parts.sent.textContent = answer.kept
      ? "Thank you. Your feedback is kept."
      : "Thank you. Your feedback was counted; it is not kept.";
    parts.sent.focus();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    parts.fields.disabled = false;
    parts.sent.textContent =
      error.status === 404
        ? "The server no longer remembers this answer, so feedback cannot be given. Ask again first."
        : `Your feedback was not sent. ${error.message} ${error.advice}`;
    parts.more.querySelector("button").focus();
    if (error.status === 401) page.wantToken(false);
  }
}

// ---------------------------------------------------------------- the page

class Page {
  constructor() {
    this.agent = { models: [], limits: {}, feedback: { kept: false } };
    this.stopping = null; // the AbortController of the question that is being answered
    this.askAgain = false; // a question was refused for want of a token
  }

  start() {
    this.prefill();
    window.addEventListener("hashchange", () => this.prefill());
    $("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    $("question").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.ask();
    });
    $("question").addEventListener("input", () => this.complain(""));
    $("stop").addEventListener("click", () => this.stopping?.abort());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) this.stopping?.abort();
    });
    $("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.useToken();
    });
    return this.meet();
  }

  /** The question of the address, ready to be sent by whoever opened it. */
  prefill() {
    const question = new URLSearchParams(location.hash.slice(1)).get("q");
    if (question) $("question").value = question;
  }

  say(...lines) {
    $("status").replaceChildren(
      ...lines.map((text) => {
        const line = document.createElement("p");
        line.textContent = text;
        return line;
      }),
    );
  }

  /** Learn what is served, and show the controls that fit. True unless a token is wanted. */
  async meet() {
    try {
      this.agent = { ...this.agent, ...(await (await call("agent")).json()) };
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 401) {
        this.wantToken(false);
        return false;
      }
      this.say(`${error.message} ${error.advice}`);
      return true;
    }
    const { limits, index } = this.agent;
    $("compare-box").hidden = !this.model("candidate");
    for (const [id, most] of [["max-steps", limits.max_steps], ["passages", limits.passages]]) {
      if (most) this.offerLimit($(id), most);
    }
    const champion = this.model("champion");
    $("served").textContent = [
      champion?.digest && `Model ${short(champion.digest)}`,
      index && `Index ${short(index)}`,
    ].filter(Boolean).join(" · ");
    return true;
  }

  model(role) {
    return this.agent.models.find((each) => each.role === role);
  }

  offerLimit(field, most) {
    field.max = most;
    field.value = most;
    field.nextElementSibling.textContent = `1 to ${most}`;
    field.parentElement.hidden = false;
    $("options").hidden = false;
    field.addEventListener("change", () => {
      const wanted = Math.round(Number(field.value)) || most;
      field.value = Math.min(most, Math.max(1, wanted));
    });
  }

  wantToken(askAgain) {
    this.askAgain = askAgain;
    $("token-form").hidden = false;
    $("token").focus();
    this.say("This server asks for an access token.");
  }

  async useToken() {
    const token = $("token").value.trim();
    if (!/^[\x21-\x7e]+$/.test(token)) {
      this.say("Enter the token: letters, digits and signs without spaces.");
      return;
    }
    sessionStorage.setItem(TOKEN, token);
    const wanted = this.askAgain;
    this.say("");
    if (!(await this.meet())) {
      sessionStorage.removeItem(TOKEN);
      this.askAgain = wanted;
      this.say("The server did not accept this token. Check it and try again.");
      return;
    }
    $("token").value = "";
    $("token-form").hidden = true;
    $("question").focus();
    if (wanted) this.ask();
    else this.say("The token was accepted.");
  }

  complain(text) {
    if (text) $("question").setAttribute("aria-invalid", "true");
    else $("question").removeAttribute("aria-invalid");
    $("question-problem").textContent = text;
    $("question-problem").hidden = !text;
    if (text) $("question").focus();
  }

  question() {
    const text = $("question").value.trim();
    const size = [...text].length;
    const most = this.agent.limits.question;
    if (!text) this.complain("Write a question first.");
    else if (most && size > most) {
      this.complain(`The question has ${size} characters; this server takes ${most}. Shorten it.`);
    } else return text;
    return null;
  }

  body(model, question) {
    const asked = {};
    for (const [name, id] of [["max_steps", "max-steps"], ["passages", "passages"]]) {
      if ($(id).max) asked[name] = Number($(id).value);
    }
    return {
      model: model.id,
      messages: [{ role: "user", content: question }],
      stream: true,
      stream_options: { include_usage: true },
      exsearch: asked,
    };
  }

  async ask() {
    if (this.stopping) return;
    const question = this.question();
    if (!question) return;
    this.complain("");
    this.askAgain = false;
    history.replaceState(null, "", `#q=${encodeURIComponent(question)}`);
    const stopping = new AbortController();
    this.busy(stopping);
    try {
      const runs = this.lay(question);
      const ends = await Promise.all(
        runs.map((run) => run.follow(this.body(run.model, question), stopping.signal)),
      );
      for (const run of runs) {
        if (run.finished) offerFeedback(run, Boolean(this.agent.feedback?.kept));
      }
      if (ends.some((problem) => problem?.status === 401)) this.wantToken(true);
    } finally {
      this.busy(null);
    }
  }

  /** Empty columns for the question: one, or champion and candidate side by side. */
  lay(question) {
    const champion = this.model("champion") ?? { id: "exsearch" };
    const candidate = $("compare").checked && this.model("candidate");
    const models = candidate ? [champion, candidate] : [champion];
    const names = candidate ? ["Champion", "Candidate"] : ["Steps and answer"];
    const start = models.length > 1 ? names.map((name) => `${name} · Asking…`) : ["Asking…"];
    this.say(...start);
    const lines = $("status").children;
    const runs = models.map((model, at) => {
      const prefix = models.length > 1 ? `${names[at]} · ` : "";
      const line = lines[at];
      const run = new Run(model, (text) => (line.textContent = prefix + text));
      run.setName(names[at], models.length > 1 ? model.digest : null);
      return run;
    });
    $("asked").textContent = question;
    $("runs").replaceChildren(...runs.map((run) => run.root));
    document.body.classList.toggle("comparing", models.length > 1);
    $("result").hidden = false;
    return runs;
  }

  busy(stopping) {
    this.stopping = stopping;
    $("submit").setAttribute("aria-disabled", String(Boolean(stopping)));
    const held = document.activeElement === $("stop");
    $("stop").hidden = !stopping;
    if (held && !stopping) $("question").focus();
  }
}

const page = new Page();
page.start();
