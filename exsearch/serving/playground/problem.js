// What goes wrong, in words for the person who asked.

import { count } from "./dom.js";

/** What went wrong, for the person who asked: what it was, and what to do. */
export class Problem extends Error {
  constructor(title, advice, status = 0) {
    super(title);
    this.advice = advice;
    this.status = status;
  }
}

export function sentence(text) {
  const said = String(text ?? "").trim().replace(/^./u, (first) => first.toUpperCase());
  return said && !/[.!?…]$/.test(said) ? `${said}.` : said;
}

/** The Problem of an answer whose status is not 200. */
export async function refusal(response) {
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

/** The Problem of an episode that failed; `id` is its request's. */
export function failure({ message, type, code }, id) {
  const cure = CURES[code] ?? CURES[type] ?? "Ask again, or put the question in other words.";
  const advice = [sentence(message), cure, id ? `The request was ${id}.` : ""];
  return new Problem("The agent could not finish.", advice.filter(Boolean).join(" "));
}
