// The verdict on an answer.

import { copy, show } from "./dom.js";
import { call } from "./predictor.js";
import { Problem } from "./problem.js";

/**
 * A form under `run`'s answer; `kept` says whether the server keeps what is sent, and
 * `wantToken` is called where it asks for a token.
 */
export function offerFeedback(run, kept, wantToken) {
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
    await sendFeedback(body, parts, wantToken);
  });
  run.parts["answer-card"].append(root);
}

async function sendFeedback(body, parts, wantToken) {
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
    if (error.status === 401) wantToken();
  }
}
