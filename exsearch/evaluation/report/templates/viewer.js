"use strict";
// The episode viewer. All text goes in by textContent: whatever a passage or an
// answer holds stays text. The place in the page's address, #q=GROUP/ID or #q=ID,
// says what is shown, so that a question can be linked to.
(() => {
  const data = JSON.parse(document.getElementById("episodes-data").textContent);
  const $ = (id) => document.getElementById(id);
  if (!data.groups.length) return;
  let group = data.groups[0];
  let shown = group.questions;
  let current = shown[0];

  function make(tag, kind, text, ...children) {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== undefined && text !== null) node.textContent = text;
    node.append(...children.filter(Boolean));
    return node;
  }

  const known = (value) => value !== undefined && value !== null;
  const percent = (value) => (100 * value).toFixed(value < 0.0995 ? 1 : 0) + "%";

  function passage([row, rank, gold]) {
    const [title, text] = data.passages[row];
    const node = make("div", gold ? "passage gold" : "passage");
    node.append(make("b", "", title), make("span", "tag", gold ? "kept · gold" : "kept"));
    node.append(make("div", "", text));
    return node;
  }

  function others(passages) {
    const left = passages.filter(([, rank]) => !rank);
    if (!left.length) return null;
    const gold = left.filter(([, , isGold]) => isGold).length;
    const told = `${left.length} more retrieved` + (gold ? `, ${gold} gold among them` : "");
    const list = make("ol", "rest");
    for (const [row, , isGold] of left) {
      list.append(make("li", isGold ? "gold" : "", data.passages[row][0] + (isGold ? " (gold)" : "")));
    }
    return make("details", "", null, make("summary", "", told), list);
  }

  function step(one) {
    const kept = one.passages.filter(([, rank]) => rank).sort((a, b) => a[1] - b[1]);
    return make("div", "step", null,
      make("div", "query", one.query),
      ...kept.map(passage),
      others(one.passages),
      known(one.evidence)
        ? make("div", "evidence", one.evidence)
        : make("div", "none", "no evidence written"));
  }

  function card(one) {
    const node = make("article", "card" + (one.failure ? " failed" : one.correct ? " good" : ""));
    const head = make("header", "", null, make("span", "", one.label));
    if (known(one.weight)) head.append(make("span", "", "w " + one.weight.toFixed(3)));
    node.append(head);
    if (known(one.weight)) {
      const fill = make("i");
      fill.style.width = percent(one.weight);
      node.append(make("div", "meter", null, fill));
    }
    const facts = make("div", "facts");
    if (known(one.ll)) {
      const told = `log p(gold) ${one.ll.toFixed(2)}, p ${percent(Math.exp(one.ll))}`;
      facts.append(make("span", "", told));
    }
    if (known(one.f1)) facts.append(make("span", "", "F1 " + one.f1.toFixed(2)));
    facts.append(make("span", "", one.steps.length + (one.steps.length === 1 ? " search" : " searches")));
    if (one.forced) facts.append(make("span", "", "stopped by the step limit"));
    if (one.repairs) facts.append(make("span", "", `repairs: ${one.repairs}`));
    node.append(facts, ...one.steps.map(step));
    if (one.failure) {
      const [reason, detail] = one.failure;
      node.append(make("div", "trouble", `Failed: ${reason}` + (detail ? ` (${detail})` : "")));
    } else {
      const told = known(one.answer) && one.answer.trim() ? one.answer : "(no answer)";
      const verdict = known(one.correct) ? (one.correct ? "✓ " : "✗ ") : "";
      node.append(make("div", one.correct ? "answer good" : "answer", null,
        make("span", "soft small", "Answer "), make("b", "", verdict + told)));
    }
    return node;
  }

  function showQuestion() {
    const facts = make("div", "facts");
    const fact = (what, value) => facts.append(make("span", "", what + " ", make("b", "", value)));
    if (current.answers) fact("Gold answer", current.answers.join(" · "));
    if (known(current.hops)) fact("Hops", String(current.hops));
    if (current.kind) fact("Kind", current.kind);
    if (known(current.ess)) fact("ESS", `${current.ess.toFixed(2)} of ${current.cards.length}`);
    if (known(current.log_marginal)) fact("Log marginal", current.log_marginal.toFixed(2));
    if (known(current.reached)) fact("Reached", current.reached ? "yes" : "no");
    fact("Id", current.id);
    $("question").replaceChildren(make("h3", "", current.question), facts);
    $("cards").replaceChildren(...current.cards.map(card));
  }

  function dots(question) {
    const row = make("span", "dots");
    for (const one of question.cards) {
      row.append(make("i", one.failure ? "failed" : one.correct ? "good" : ""));
    }
    return row;
  }

  function showList() {
    const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (q) => [q.question, q.id, ...(q.answers || [])].join(" ").toLowerCase();
    shown = group.questions.filter((q) => words.every((word) => text(q).includes(word)));
    $("list").replaceChildren(...shown.map((question) => {
      const button = make("button", "", question.question, dots(question));
      button.type = "button";
      button.setAttribute("aria-current", String(question === current));
      button.addEventListener("click", () => select(group, question));
      return make("li", "", null, button);
    }));
    if (!shown.length) $("list").append(make("li", "none", "no question has these words"));
    $("told").textContent = group.told;
  }

  function showGroups() {
    $("groups").replaceChildren(...data.groups.map((one) => {
      const button = make("button", "", one.label);
      button.type = "button";
      button.setAttribute("aria-pressed", String(one === group));
      button.addEventListener("click", () => select(one, same(one) || one.questions[0]));
      return button;
    }));
  }

  // The same question in another group, where it is there too.
  const same = (other) => other.questions.find((question) => question.id === current.id);

  function show() {
    showGroups();
    showList();
    showQuestion();
    const chosen = $("list").querySelector('[aria-current="true"]');
    if (chosen) $("list").scrollTop = chosen.offsetTop - $("list").offsetTop - 80;
  }

  function select(newGroup, question) {
    group = newGroup;
    current = question;
    const place = `#q=${encodeURIComponent(group.key)}/${encodeURIComponent(question.id)}`;
    history.replaceState(null, "", place);
    show();
  }

  function fromAddress() {
    const match = /^#q=(?:([^/]*)\/)?(.*)$/.exec(location.hash);
    if (!match) return false;
    let key, id;
    try {
      key = match[1] && decodeURIComponent(match[1]);
      id = decodeURIComponent(match[2]);
    } catch {
      return false;
    }
    for (const one of data.groups.filter((g) => !key || g.key === key)) {
      const found = one.questions.find((question) => question.id === id);
      if (found) {
        group = one;
        current = found;
        return true;
      }
    }
    return false;
  }

  function move(by) {
    const place = shown.indexOf(current);
    const next = shown[Math.min(shown.length - 1, Math.max(0, place + by))];
    if (next) select(group, next);
  }

  function turn(by) {
    const next = data.groups[data.groups.indexOf(group) + by];
    if (next) select(next, same(next) || next.questions[0]);
  }

  const keys = {
    ArrowDown: () => move(1), ArrowUp: () => move(-1),
    ArrowRight: () => turn(1), ArrowLeft: () => turn(-1),
  };
  $("viewer").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target === $("find");
    if (!(event.key in keys) || (typing && !event.key.endsWith("Down") && !event.key.endsWith("Up"))) return;
    event.preventDefault();
    keys[event.key]();
    if (!typing) $("list").querySelector('[aria-current="true"]')?.focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.tagName === "INPUT") return;
    event.preventDefault();
    $("find").focus();
  });
  $("find").addEventListener("input", showList);
  window.addEventListener("hashchange", () => {
    if (fromAddress()) show();
  });
  if (fromAddress()) $("viewer").scrollIntoView();
  show();
})();
