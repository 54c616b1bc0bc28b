// The page's own tools.

export const $ = (id) => document.getElementById(id);
export const short = (digest) => String(digest ?? "").replace(/^sha256:/, "").slice(0, 12);
export const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** A copy of the template `id`: its one element, and its `data-part` elements by name. */
export function copy(id) {
  const root = $(id).content.firstElementChild.cloneNode(true);
  const parts = {};
  for (const part of root.querySelectorAll("[data-part]")) parts[part.dataset.part] = part;
  return { root, parts };
}

export function show(element, text) {
  if (text !== undefined) element.textContent = text;
  element.hidden = false;
}
