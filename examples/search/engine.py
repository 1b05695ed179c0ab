"""A small full-text index: BM25 ranking, words that begin alike, quoted phrases, excerpts."""

import bisect
import math
import re
import unicodedata
from array import array

K1, B = 1.2, 0.75  # the usual constants of BM25
TITLE_WEIGHT = 3  # a word in the title counts as often as this many in the text
STOP = frozenset("a an and are as at be but by for from had has have he her his i in is it its not of on or "
                 "she so that the their them then they this to was were which who will with you".split())
_word = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_query = re.compile(r'"([^"]*)"|(\S+)')


def fold(text):
    """Lower case without accents, so that Müller is found as muller."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def stem(word):
    """Cut the commonest English endings. Crude, but the same for text and query."""
    word = word.removesuffix("'s").replace("'", "")
    for end, least in (("ies", 4), ("ing", 6), ("ed", 5), ("es", 5), ("s", 4)):
        if len(word) >= least and word.endswith(end) and not word.endswith("ss"):
            word = word[: -len(end)] + ("y" if end == "ies" else "")
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word.removesuffix("e") if len(word) > 3 else word


def terms(text):
    """Yield (term, begin, end) for each word."""
    for m in _word.finditer(text):
        yield stem(fold(m[0])), m.start(), m.end()


class Index:
    """Documents that can be searched. Built once, then only read."""

    def __init__(self, documents):
        """documents: (title, text) pairs."""
        self.documents = list(documents)
        self.postings = {}  # term -> {document: positions}
        self.lengths = []
        for n, (title, text) in enumerate(self.documents):
            at = 0
            for part, weight in ((title, TITLE_WEIGHT), (text, 1)):
                for term, _, _ in terms(part):
                    self.postings.setdefault(term, {}).setdefault(n, array("i")).extend([at] * weight)
                    at += 1
                at += 1  # no phrase runs from the title into the text
            self.lengths.append(at)
        self.average = sum(self.lengths) / max(1, len(self.lengths))
        self.vocabulary = sorted(self.postings)

    def expand(self, word, last):
        """The indexed terms that a word of the query stands for, each with its weight."""
        term = stem(fold(word))
        found = {term: 1.0} if term in self.postings else {}
        if word.endswith("*") or last and not found and len(term) > 2:
            prefix = fold(word.rstrip("*"))
            i = bisect.bisect_left(self.vocabulary, prefix)
            while i < len(self.vocabulary) and self.vocabulary[i].startswith(prefix) and len(found) < 50:
                found.setdefault(self.vocabulary[i], 0.8)
                i += 1
        return found

    def search(self, query, limit=10):
        """Return the documents that fit best, as {title, score, excerpt}, and how many fit at all."""
        scores, wanted = {}, set()
        phrases = []
        words = [(m[1], m[2]) for m in _query.finditer(query[:1000])][:32]
        for i, (phrase, word) in enumerate(words):
            if phrase is not None:
                phrase_terms = [t for t, _, _ in terms(phrase)]
                phrases.append(phrase_terms)
                groups = [{t: 1.0} for t in phrase_terms]
            else:
                if fold(word) in STOP and len(words) > 1:
                    continue
                parts = _word.findall(word)
                groups = [self.expand(p + ("*" if word.endswith("*") else ""), i == len(words) - 1) for p in parts]
            for group in groups:
                for term, weight in group.items():
                    self.add(scores, term, weight)
                    wanted.add(term)
        for phrase in phrases:
            scores = {n: s for n, s in scores.items() if self.has_phrase(n, phrase)}
        best = sorted(scores.items(), key=lambda kv: (-kv[1], kv[0]))
        return [self.hit(n, s, wanted) for n, s in best[:limit]], len(best)

    def add(self, scores, term, weight):
        postings = self.postings.get(term, {})
        idf = math.log(1 + (len(self.documents) - len(postings) + 0.5) / (len(postings) + 0.5))
        for n, positions in postings.items():
            f = len(positions)
            scores[n] = scores.get(n, 0.0) + weight * idf * f * (K1 + 1) / (f + K1 * (1 - B + B * self.lengths[n] / self.average))

    def has_phrase(self, n, phrase):
        places = [set(self.postings.get(t, {}).get(n, ())) for t in phrase]
        return bool(places) and any(all(at + k in p for k, p in enumerate(places)) for at in places[0])

    def hit(self, n, score, wanted):
        title, text = self.documents[n]
        return {"title": title, "score": round(score, 3), "excerpt": excerpt(text, wanted)}


def excerpt(text, wanted, width=160):
    """Cut the stretch with the most different wanted words out of a text and mark them with **."""
    found = [(b, e, t) for t, b, e in terms(text) if t in wanted]
    start = 0
    if found:
        most = -1
        for i, (b, _, _) in enumerate(found):
            inside = {t for fb, fe, t in found[i:] if fe <= b + width}
            if len(inside) > most:
                most, start = len(inside), b
        start = max(0, min(start - width // 4, len(text) - width))
        start = text.find(" ", start) + 1 if start else 0
    end = min(len(text), start + width)
    if end < len(text):
        end = max(text.rfind(" ", start, end), start + 1)
    out, at = [], start
    for b, e, _ in found:
        if b >= start and e <= end:
            out += [text[at:b], "**", text[b:e], "**"]
            at = e
    out.append(text[at:end])
    return ("…" if start else "") + "".join(out) + ("…" if end < len(text) else "")


def read(path):
    """Read a text file whose documents begin with a line "# title"."""
    title, lines = None, []
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.startswith("# "):
                if title is not None:
                    yield title, "".join(lines).strip()
                title, lines = line[2:].strip(), []
            else:
                lines.append(line)
    if title is not None:
        yield title, "".join(lines).strip()
