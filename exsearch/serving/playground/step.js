// One search step: its query, its passages, what was kept of them, and the evidence.

import { copy, count, show } from "./dom.js";
import { sharedRuns } from "./highlight.js";
import { sentence } from "./problem.js";

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

export class Step {
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
