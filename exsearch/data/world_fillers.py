"""The demo world's scenery: openings, fillers, trades, crafts, and namesakes' passages."""

from __future__ import annotations

TRADES = {"Pictures": "film company", "Press": "publishing house"}
"""What a company does, by the last word of its name."""
JOBS = ("merchant", "film director", "novelist")
"""Founders', directors' and authors', in this order."""
TOWN_OPENINGS = (
    "{n} is a {size} town in the {region}.",
    "The {size} town {n} lies in the {region}.",
)
FILLERS = {
    "film": (
        "{n} was shot in {number} days.",
        "The music of {n} is for {instrument} alone.",
        "Most of {n} was shot at night, in the rain.",
    ),
    "novel": (
        "{n} has {number} chapters.",
        "{n} is told by an old {instrument} player.",
        "The cover of {n} shows a {animal}.",
    ),
    "company": (
        "About {number} people work for {n}.",
        "A {animal} is the emblem of {n}.",
        "The staff of {n} hold a concert every spring.",
    ),
    "person": (
        "{n} plays the {instrument} and keeps a {animal}.",
        "A lover of the {instrument}, {n} gives {number} concerts a year.",
        "{n} once crossed the {region} on foot.",
    ),
    "town": (
        "A stone {animal} guards the market place of {n}.",
        "The {instrument} fair of {n} is held every May.",
        "The market place of {n} has {number} lime trees.",
    ),
    "river": (
        "The {n} rises in the {region}.",
        "The {animal} is often seen along the {n}.",
        "There are {number} bridges over the {n}.",
    ),
}
WORDS: dict[str, tuple[str, ...]] = {
    "genre": ("comic", "historical", "gothic", "romantic", "political", "detective", "war"),
    "size": ("small", "quiet", "busy", "walled", "hilly", "prosperous"),
    "region": (
        "northern hills",
        "eastern plains",
        "western moors",
        "southern uplands",
        "coastal marshes",
        "inland valleys",
    ),
    "instrument": ("cello", "flute", "harp", "trumpet", "viola", "zither", "bassoon"),
    "animal": ("heron", "fox", "badger", "raven", "beaver", "hare", "lynx"),
}
CRAFTS = tuple(
    f"{material} {thing}"
    for material, things in (
        ("glass", ("bells", "beads", "bottles")), ("copper", ("pots", "kettles", "lamps")),
        ("wool", ("rugs", "shawls", "hats")), ("clay", ("pipes", "tiles", "jugs")),
        ("leather", ("gloves", "saddles", "boots")), ("oak", ("barrels", "chairs", "chests")),
        ("silver", ("spoons", "rings", "clasps")), ("linen", ("sails", "napkins", "shirts")),
        ("iron", ("locks", "nails", "stoves")), ("willow", ("baskets", "flutes", "cradles")),
    )
    for thing in things
)  # fmt: skip
NAMESAKES = (
    ("ship", "{n} was a ferry launched in {year}. It carried {number} passengers between two "
             "islands, was painted with a {animal}, and was broken up after a storm."),
    ("horse", "{n} was a racehorse foaled in {year}. It won {number} races, mostly in the "
              "{region}, and was buried beside a statue of a {animal}."),
    ("opera", "{n} is an opera in three acts first sung in {year}. It is remembered for its "
              "{instrument} solo and for a {animal} led across the stage."),
    ("asteroid", "{n} is an asteroid discovered in {year} from the {region}. It is about "
                 "{number} kilometres wide and turns once in nine hours."),
)  # fmt: skip
RELATIVES = (
    ("chess player", "{n} is a chess player who won the open title in {year}. {n} plays "
                     "{number} games a day and collects carvings of the {animal}."),
    ("botanist", "{n} is a botanist who described {number} mosses of the {region}. A "
                 "greenhouse was opened in honour of {n} in {year}."),
    ("cyclist", "{n} is a cyclist who crossed the {region} in {year}. {n} trains with "
                "{instrument} music and won {number} stages in all."),
)  # fmt: skip
