// What a passage and the evidence taken from it have in common.

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
