// A stream of server-sent events.

import { Problem } from "./problem.js";

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

export function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new Problem("The answer cannot be read.", "What came is not this server's. Ask again.");
  }
}
