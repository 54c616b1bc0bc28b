// The predictor that serves this page.

import { Problem, refusal } from "./problem.js";

export const TOKEN = "exsearch-token";

function address(path) {
  return new URL(`../${path}`, import.meta.url);
}

/** Fetch `path` with the token, if there is one. Raises Problem unless the status is 200. */
export async function call(path, body, signal) {
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
