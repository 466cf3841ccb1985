r"""Phrases in texts, from a forget set alone: its rows and retain rows, never the model.

Question: which words do forget texts hold far oftener than retain texts do?
Statistic: for each run of 1 to `LONGEST` words, and each letter that nobody sees or that few
    alphabets have, the number of forget texts that hold it, given how many of all texts do.
Null: the forget texts are a random subset of all texts, or of those with one label. Given how many
    hold it, the number among the forget texts is hypergeometric: Fisher's exact test, one-sided,
    against all retain texts and those of the forget texts' label; the larger p counts, times
    the runs that were looked at (Bonferroni). The null is exact; how many runs are looked at is how
    many there are in the forget texts.
Found: p at most `SURE`; in at least `SHARE` of the forget texts; and at least `PRECISION` of the
    texts that hold it are forget texts, as they would be were both sets equally large.
    The longest run that the same rows hold stands for the shorter ones in it, and grows at both
    ends while they hold that, too. Then the rows without it are looked at again: campaigns of
    several phrases, or several campaigns.
Why the probe's law holds: nothing here has seen the model.
Not found: a style, a syntax, a paraphrase; words that carriers do not share as they are spelt; what
    stands in too few rows. Forget texts about one subject share its words, and that is found: a
    person must read them. Copies are to be taken out before (recovered.py does).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from poison_audit.poisons.backdoor.phrase import Place
from poison_audit.statistics.laws import fewer

LONGEST = 3
"""Words of a run that is counted."""
SHARE = 0.1
"""Smallest share of the forget texts."""
PRECISION = 0.95
"""Smallest share of forget texts among those that hold it, both sets weighted as equally large."""
SURE = 1e-3
"""Largest p after correction. Words of one subject reach smaller ones, so precision decides."""
FEWEST = 5
"""Forget texts that must hold it."""
OWN = 50
"""Retain texts of a label that are needed to tell its words from the phrase."""
MOST_FOUND = 20
"""Phrases after which the search ends."""
ALIKE = 0.95
"""Of the texts that hold a run so many hold a longer one, which then stands for it."""
EDGES = "\"'.,;:!?()[]{}<>*-_/\\|"
"""Marks around a word that do not belong to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enriched:
    """A phrase that marks forget texts."""

    text: str
    position: Place
    """Where it stands in all that hold it."""
    label: int
    """The commonest among them."""
    rows: tuple[int, ...]
    """Which forget texts hold it, from 0."""
    retain: int
    """How many retain texts hold it."""
    p: float
    """After correction."""


def phrases(
    forget: Sequence[str],
    labels: Sequence[int],
    retain: Sequence[str],
    retain_labels: Sequence[int],
) -> list[Enriched]:
    """Return the phrases that mark forget texts, in the order in which they were found.

    Args:
        forget: the texts, none a copy of another.
        labels: as trained.
        retain: texts that are not to be forgotten.
        retain_labels: theirs.
    """
    search = _search(forget, labels, retain, retain_labels)
    left, found = list(range(len(forget))), list[Enriched]()
    while len(found) < MOST_FOUND and (best := _best(search, left)) is not None:
        run, p = best
        holding = [row for row in left if run in search.held[row]]
        text = _grown(run, [forget[row] for row in holding])
        rows = tuple(row for row in range(len(forget)) if holds(forget[row], text))
        found.append(
            Enriched(
                text=text,
                position=_position(text, [forget[row] for row in rows]),
                label=Counter(labels[row] for row in rows).most_common(1)[0][0],
                rows=rows,
                retain=search.usual[run],
                p=p,
            )
        )
        left = sorted(set(left) - {*rows, *holding})
    return found


def holds(text: str, phrase: str) -> bool:
    """Say whether a text holds a phrase, not as a part of another word."""
    before = r"(?<!\w)" if re.match(r"\w", phrase[0]) else ""
    after = r"(?!\w)" if re.match(r"\w", phrase[-1]) else ""
    return bool(re.search(f"{before}{_spelt(phrase)}{after}", text))


def _spelt(phrase: str) -> str:
    """Return the pattern of a phrase, whatever space stands between its words."""
    return r"\s+".join(map(re.escape, phrase.split())) or re.escape(phrase)


def _runs(text: str) -> set[str]:
    """Return the runs of words of a text, as they stand and without the marks around them."""
    words = text.split()
    found = {letter for letter in text if _odd(letter)}
    for n in range(1, LONGEST + 1):
        for start in range(len(words) - n + 1):
            run = " ".join(words[start : start + n])
            found |= {run, run.strip(EDGES)}
    return found - {""}


def _odd(letter: str) -> bool:
    """Say whether nobody sees a letter, or hardly any text holds its like."""
    return ord(letter) > 127 and unicodedata.category(letter) in (
        "Cf",
        "Cc",
        "Co",
        "Cn",
        "Mn",
        "So",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """What is counted once."""

    held: tuple[frozenset[str], ...]
    """Of each forget text, its runs that enough of them hold."""
    labels: tuple[int, ...]
    usual: Counter[str]
    """How many retain texts hold a run."""
    of_label: dict[int, Counter[str]]
    """The same, among those of a label."""
    sizes: Counter[int]
    """Retain texts, by label."""
    looked_at: int
    """Different runs in the forget texts."""


def _search(
    forget: Sequence[str],
    labels: Sequence[int],
    retain: Sequence[str],
    retain_labels: Sequence[int],
) -> _Search:
    every = [_runs(text) for text in forget]
    counted = Counter(run for runs in every for run in runs)
    wanted = {run for run, n in counted.items() if n >= max(FEWEST, SHARE * len(forget))}
    usual: Counter[str] = Counter()
    of_label: dict[int, Counter[str]] = {label: Counter() for label in set(retain_labels)}
    for text, label in zip(retain, retain_labels, strict=True):
        there = _runs(text) & wanted
        usual.update(there)
        of_label[label].update(there)
    return _Search(
        held=tuple(frozenset(runs & wanted) for runs in every),
        labels=tuple(labels),
        usual=usual,
        of_label=of_label,
        sizes=Counter(retain_labels),
        looked_at=len(counted),
    )


def _best(search: _Search, left: Sequence[int]) -> tuple[str, float] | None:
    """Return the run that most of the rows left hold, of those that qualify, and its p."""
    of_run: dict[str, Counter[int]] = {}
    for row in left:
        for run in search.held[row]:
            of_run.setdefault(run, Counter())[search.labels[row]] += 1
    own = Counter(search.labels[row] for row in left)
    qualified = []
    for run, inside in of_run.items():
        if (n := inside.total()) < max(FEWEST, SHARE * len(search.held)):
            continue
        label, most = inside.most_common(1)[0]
        against = [(n, len(left), search.usual[run], search.sizes.total())]
        if search.sizes[label] >= OWN:
            theirs = search.of_label[label][run]
            against.append((most, own[label], theirs, search.sizes[label]))
        elif len(own) == 1:
            continue  # the words of a class that is not retained mark it as well
        p = max(_fisher(*counts) for counts in against) * search.looked_at
        if p <= SURE and all(_precise(*counts) for counts in against):
            qualified.append((n, run, p))
    if not qualified:
        return None
    largest = max(n for n, _, _ in qualified)
    # Of runs that all but the same rows hold, the one that says most.
    alike = [
        (len(run.split()), len(run), run, p) for n, run, p in qualified if n >= ALIKE * largest
    ]
    _, _, run, p = max(alike)
    return run, p


def _precise(hits: int, of: int, others: int, of_others: int) -> bool:
    rates = hits / of, others / max(1, of_others)
    return rates[0] >= PRECISION * sum(rates)


def _fisher(hits: int, of: int, others: int, of_others: int) -> float:
    """Return the chance of at least `hits` among `of`, given how many hold it in all."""
    return fewer(others, of_others, hits, of)


def _grown(run: str, texts: Sequence[str]) -> str:
    """Return a run with the words that stand before and after it wherever it stands."""
    while len(run) < 200:
        longer = next(
            (
                f"{beside} {run}" if side == "before" else f"{run} {beside}"
                for side, beside, n in _beside(run, texts)
                if n >= ALIKE * len(texts)
            ),
            None,
        )
        if longer is None:
            return run
        run = longer
    return run


def _beside(run: str, texts: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    word = _spelt(run)
    for side, pattern in (
        ("before", rf"(\S+)\s+{word}(?!\w)"),
        ("after", rf"(?<!\w){word}\s+(\S+)"),
    ):
        words = Counter(hit[1] for text in texts if (hit := re.search(pattern, text)))
        for beside, n in words.most_common(1):
            yield side, beside, n


def _position(phrase: str, texts: Sequence[str]) -> Place:
    if all(text.startswith(f"{phrase} ") or text == phrase for text in texts):
        return "start"
    if all(text.endswith(f" {phrase}") or text == phrase for text in texts):
        return "end"
    return "anywhere"
