"""What a CSV holds: types, least, most, mean and missing values of each column.

The table is read once, row by row, so its size is not bounded by memory: each column keeps a
few numbers, its most frequent values and a sketch of how many different ones there are.
"""

import csv
import datetime
import heapq
import io
import math
import zlib

MAX_COLUMNS = 1000
MAX_FIELD = 1 << 20  # characters in one field
COUNTED = 1000  # different values of a column that are counted one by one
SKETCH = 256  # least hashes that are kept to estimate how many different values there are
MISSING = {"", "na", "n/a", "nan", "null", "none", "-"}
BOOLEANS = {"true", "false", "yes", "no"}


class BadTable(ValueError):
    """The text can't be read as a table."""


class Column:
    """What is known of one column so far."""

    def __init__(self, name):
        self.name = name
        self.count = self.missing = 0
        self.could_be = {"integer", "number", "boolean", "date"}
        self.total, self.mean, self.squares = 0, 0.0, 0.0
        self.least = self.most = None
        self.first = self.last = None  # of texts and dates, in their order
        self.shortest = self.longest = None
        self.seen = {}
        self.many = False  # more different values than are counted
        self.hashes, self.kept = [], set()  # a heap of the least hashes, negated

    def add(self, text):
        text = text.strip()
        if text.lower() in MISSING:
            self.missing += 1
            return
        self.count += 1
        if self.could_be:
            self.narrow(text)
        if self.first is None or text < self.first:
            self.first = text
        if self.last is None or text > self.last:
            self.last = text
        n = len(text)
        self.shortest = n if self.shortest is None else min(self.shortest, n)
        self.longest = n if self.longest is None else max(self.longest, n)
        self.tally(text)

    def narrow(self, text):
        """Drop the types that this value is not of."""
        could = self.could_be
        if "integer" in could or "number" in could:
            value = number(text)
            if value is None:
                could -= {"integer", "number"}
            else:
                if not isinstance(value, int):
                    could.discard("integer")
                self.total += 1
                # Welford's: stays exact where a sum of squares would not.
                off = value - self.mean
                self.mean += off / self.total
                self.squares += off * (value - self.mean)
                self.least = value if self.least is None else min(self.least, value)
                self.most = value if self.most is None else max(self.most, value)
        if "boolean" in could and text.lower() not in BOOLEANS:
            could.discard("boolean")
        if "date" in could and not is_date(text):
            could.discard("date")

    def tally(self, text):
        if text in self.seen:
            self.seen[text] += 1
        elif len(self.seen) < COUNTED and len(text) <= 200:
            self.seen[text] = 1
        else:
            self.many = True
        h = mix(zlib.crc32(text.encode("utf-8", "surrogatepass")))
        if h in self.kept:
            return
        if len(self.hashes) < SKETCH:
            heapq.heappush(self.hashes, -h)
            self.kept.add(h)
        elif h < -self.hashes[0]:
            self.kept.discard(-heapq.heapreplace(self.hashes, -h))
            self.kept.add(h)

    def distinct(self):
        """How many different values, and whether that is an estimate."""
        if not self.many:
            return len(self.seen), False
        if len(self.hashes) < SKETCH:  # all hashes are kept, so it is their number
            return len(self.kept), False
        return max(len(self.seen), round((SKETCH - 1) * 2**32 / -self.hashes[0])), True

    def summary(self):
        kind = "empty"
        if self.count:
            kind = next((t for t in ("integer", "number", "boolean", "date") if t in self.could_be), "text")
        distinct, estimated = self.distinct()
        out = {"name": self.name, "type": kind, "count": self.count, "missing": self.missing, "distinct": distinct}
        if estimated:
            out["distinct_estimated"] = True
        if kind in ("integer", "number"):
            deviation = math.sqrt(self.squares / (self.total - 1)) if self.total > 1 else 0.0
            out |= {"min": self.least, "max": self.most, "mean": tidy(self.mean), "stddev": tidy(deviation)}
        elif kind == "date":
            out |= {"min": self.first, "max": self.last}
        elif kind == "text":
            out |= {"min": clip(self.first), "max": clip(self.last), "shortest": self.shortest, "longest": self.longest}
        if kind in ("text", "boolean") and not self.many:
            top = sorted(self.seen.items(), key=lambda kv: (-kv[1], kv[0]))[:5]
            if top[0][1] > 1:
                out["top"] = [{"value": clip(v), "count": n} for v, n in top]
        return out


def clip(text):
    return text if len(text) <= 60 else text[:59] + "…"


def tidy(x):
    return float(f"{x:.10g}")


def mix(h):
    """Spread a CRC over 32 bits, so that near texts have far hashes."""
    h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ h >> 16


def number(text):
    """Return an int, a float, or None. Leading zeros make an identifier, not a number."""
    digits = text.lstrip("+-")
    if not digits or not (digits[0].isdigit() or digits[0] == ".") or len(text) > 40 or not text.isascii():
        return None
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit() or "_" in text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def is_date(text):
    if not 8 <= len(text) <= 35 or not text[0].isdigit() or "-" not in text:
        return False
    try:
        datetime.datetime.fromisoformat(text)
        return True
    except ValueError:
        return False


def summarize(lines, delimiter=None):
    """Read the lines of a CSV with a header and return its summary.

    lines yields texts, each with its line end. The delimiter is found out from the header when
    it is not given."""
    lines = iter(lines)
    first = next(lines, "")
    first = first.removeprefix("\ufeff")
    if not first.strip():
        raise BadTable("the body is empty; send a CSV whose first line names the columns")
    if delimiter is None:
        delimiter = max(",;\t|", key=first.count)
    csv.field_size_limit(MAX_FIELD)

    def again():
        yield first
        yield from lines

    reader = csv.reader(again(), delimiter=delimiter)
    try:
        columns = [Column(name.strip() or f"column {i}") for i, name in enumerate(next(reader), 1)]
        if len(columns) > MAX_COLUMNS:
            raise BadTable(f"{len(columns)} columns are more than {MAX_COLUMNS}")
        adds, width = [c.add for c in columns], len(columns)
        rows = ragged = 0
        for row in reader:
            if not row:
                continue
            rows += 1
            if len(row) != width:
                ragged += 1
                row = row[:width] + [""] * (width - len(row))
            for add, text in zip(adds, row):
                add(text)
    except csv.Error as e:
        raise BadTable(f"line {reader.line_num}: {e}") from None
    return {"rows": rows, "ragged_rows": ragged, "delimiter": delimiter, "columns": [c.summary() for c in columns]}


def text_lines(chunks):
    """Yield the lines of UTF-8 text that comes in chunks of bytes."""
    import codecs

    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    rest = ""
    for chunk in chunks:
        rest += decode(chunk)
        if "\n" in rest:
            whole, _, rest = rest.rpartition("\n")
            yield from io.StringIO(whole + "\n", newline="")
        elif len(rest) > 4 * MAX_FIELD:
            raise BadTable("a line is too long to be a row")
    rest += decode(b"", True)
    if rest:
        yield rest
