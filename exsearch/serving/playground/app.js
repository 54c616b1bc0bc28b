// The playground: asks the predictor that serves it, and shows an episode as it happens.
//
// Questions, passages, evidence and answers are other people's text. They enter the page
// through textContent and text nodes alone, so whatever they hold stays text; the markup is
// all in index.html's templates. Addresses are relative to these files, so that the page also
// works behind a gateway that adds a prefix.

import { $, short } from "./dom.js";
import { offerFeedback } from "./feedback.js";
import { TOKEN, call } from "./predictor.js";
import { Problem } from "./problem.js";
import { Run } from "./run.js";

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
        if (!run.finished) continue;
        offerFeedback(run, Boolean(this.agent.feedback?.kept), () => this.wantToken(false));
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

new Page().start();
