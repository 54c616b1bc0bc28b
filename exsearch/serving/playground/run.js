// One episode, as it happens.

import { copy, count, short, show } from "./dom.js";
import { parse, serverEvents } from "./events.js";
import { call } from "./predictor.js";
import { Problem, failure } from "./problem.js";
import { Step } from "./step.js";

/** One model's episode on the page; `say` tells the status line where it stands. */
export class Run {
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
