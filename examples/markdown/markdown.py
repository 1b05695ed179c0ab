"""Markdown to HTML: a useful subset of CommonMark, safe for text from strangers.

Blocks: paragraphs, # and underlined headings, lists (nested, ordered and not), block quotes,
fenced and indented code, rules, tables with alignment.
Inline: *emphasis*, **strong**, ~~deleted~~, `code`, [links](url "title"), ![images](url),
<https://auto.links>, hard line breaks, backslash escapes, entities.

Raw HTML is never passed on: it comes out as text. Links and images keep only http, https,
mailto, tel and relative addresses. Time and memory grow with the length of the text, nesting is
bounded.
"""

import html
import re

MAX_DEPTH = 16  # nested quotes and lists; deeper ones are text
SCHEMES = {"http", "https", "mailto", "tel"}

_fence = re.compile(r"^( {0,3})(`{3,}|~{3,})[ \t]*([^`\n]*)$")
_heading = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_rule = re.compile(r"^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$")
_bullet = re.compile(r"^( {0,3})([-*+])([ \t]+|$)")
_number = re.compile(r"^( {0,3})(\d{1,9})([.)])([ \t]+|$)")
_quote = re.compile(r"^ {0,3}> ?")
_underline = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
_delimiter = re.compile(r"^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_entity = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,31}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_autolink = re.compile(r"<((?:https?|mailto|tel):[^\s<>]{1,2000})>")
_scheme = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*):")
_special = re.compile(r"[\\`*_~\[!<&\n]")
_run = re.compile(r"\*+|_+|~+")
_ticks = re.compile(r"`+")
PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def render(text):
    """Return the HTML of a Markdown text."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    lines = [line.expandtabs(4) for line in text.split("\n")]
    return "".join(_blocks(lines, 0, False))


def title(text):
    """Return the text of the first heading, or None."""
    fence = None
    for line in text.splitlines():
        m = _fence.match(line)
        if m and (fence is None or m[2].startswith(fence)):
            fence = m[2] if fence is None else None
        elif fence is None and (m := _heading.match(line)) and m[2]:
            return m[2]
    return None


def _blocks(lines, depth, tight):
    """Yield the HTML of the blocks that the lines make. In a tight list paragraphs have no <p>."""
    i, n = 0, len(lines)
    while i < n:
        line = lines[i]
        if not line.strip():
            i += 1
            continue
        if m := _fence.match(line):
            i, out = _code_fence(lines, i, m)
            yield out
        elif line.startswith("    "):
            start = i
            while i < n and (lines[i].startswith("    ") or not lines[i].strip()):
                i += 1
            code = "\n".join(s[4:] for s in lines[start:i]).strip("\n")
            yield f"<pre><code>{html.escape(code)}\n</code></pre>\n"
        elif m := _heading.match(line):
            level = len(m[1])
            yield f"<h{level}>{inline(m[2] or '')}</h{level}>\n"
            i += 1
        elif _rule.match(line):
            yield "<hr>\n"
            i += 1
        elif depth < MAX_DEPTH and _quote.match(line):
            inner = []
            while i < n and (_quote.match(lines[i]) or inner and inner[-1].strip() and _continues(lines[i])):
                inner.append(_quote.sub("", lines[i], count=1))
                i += 1
            yield "<blockquote>\n"
            yield from _blocks(inner, depth + 1, False)
            yield "</blockquote>\n"
        elif depth < MAX_DEPTH and (_bullet.match(line) or _number.match(line)):
            i, out = _list(lines, i, depth)
            yield from out
        elif "|" in line and i + 1 < n and _is_table(line, lines[i + 1]):
            i, out = _table(lines, i)
            yield out
        else:
            i, out = _paragraph(lines, i, tight)
            yield out


def _continues(line):
    """Say whether a line goes on with a paragraph rather than begin a block of its own."""
    return bool(line.strip()) and not (
        _fence.match(line) or _heading.match(line) or _rule.match(line) or _quote.match(line)
        or (m := _bullet.match(line)) and line[m.end():].strip()
        or (m := _number.match(line)) and m[2] == "1" and line[m.end():].strip()
    )


def _paragraph(lines, i, tight):
    text = [lines[i].strip(" ")]
    last = lines[i]
    i += 1
    while i < len(lines):
        if m := _underline.match(lines[i]):
            level = 1 if m[1][0] == "=" else 2
            return i + 1, f"<h{level}>{inline(chr(10).join(text))}</h{level}>\n"
        if not _continues(lines[i]):
            break
        # Two spaces at a line's end break it; they are kept until the inline text is read.
        text[-1] += "  " if last.endswith("  ") else ""
        last = lines[i]
        text.append(last.strip(" "))
        i += 1
    body = inline("\n".join(text))
    return i, body + "\n" if tight else f"<p>{body}</p>\n"


def _code_fence(lines, i, m):
    indent, mark, info = len(m[1]), m[2], m[3].strip()
    code = []
    i += 1
    while i < len(lines):
        s = lines[i].strip()
        if len(s) >= len(mark) and set(s) == {mark[0]} and not lines[i].startswith("    "):
            i += 1
            break
        line = lines[i]
        code.append(line[min(indent, len(line) - len(line.lstrip(" "))):])
        i += 1
    language = info.split(None, 1)[0] if info else ""
    css = f' class="language-{html.escape(language)}"' if language else ""
    body = "".join(html.escape(s) + "\n" for s in code)
    return i, f"<pre><code{css}>{body}</code></pre>\n"


def _list(lines, i, depth):
    """Read one list; its items share the kind of mark."""
    ordered = not _bullet.match(lines[i])
    pattern = _number if ordered else _bullet
    first = pattern.match(lines[i])
    mark = first[3] if ordered else first[2]
    start = int(first[2]) if ordered else 1
    items, loose, blank = [], False, False
    width = 0
    while i < len(lines):
        line = lines[i]
        indent = len(line) - len(line.lstrip(" "))
        m = None if _rule.match(line) or items and indent >= width else pattern.match(line)
        if m and (m[3] if ordered else m[2]) == mark:
            loose = loose or blank
            width = m.end()
            if m.end() - m.start(4 if ordered else 3) > 4 or not line[m.end():]:
                width = m.start(4 if ordered else 3) + 1  # code inside the item, or an empty one
            items.append([line[width:]])
            blank = False
        elif not line.strip():
            if not items[-1] or (len(items[-1]) == 1 and not items[-1][0].strip()):
                break  # an empty item ends at a blank line
            items[-1].append("")
            blank = True
        elif indent >= width:
            loose = loose or blank and not _inside_sublist(items[-1])
            items[-1].append(line[width:])
            blank = False
        elif not blank and _continues(line) and not _bullet.match(line) and not _number.match(line):
            items[-1].append(line.lstrip(" "))
        else:
            break
        i += 1
    out = [f'<ol start="{start}">\n' if ordered and start != 1 else "<ol>\n" if ordered else "<ul>\n"]
    for item in items:
        body = "".join(_blocks(item, depth + 1, not loose))
        out.append(f"<li>{body.rstrip(chr(10))}</li>\n")
    out.append("</ol>\n" if ordered else "</ul>\n")
    return i, out


def _inside_sublist(item):
    """Say whether the last text of an item belongs to a list inside it."""
    last = next((s for s in reversed(item) if s.strip()), "")
    return last.startswith("  ") or bool(_bullet.match(last) or _number.match(last))


def _cells(line):
    """Split a table's row at the bars that are neither escaped nor in code."""
    line = line.strip()
    if line.startswith("|"):
        line = line[1:]
    cells, cell, code, i = [], [], False, 0
    while i < len(line):
        c = line[i]
        if c == "\\" and i + 1 < len(line):
            cell.append("|" if line[i + 1] == "|" else line[i:i + 2])
            i += 2
            continue
        if c == "`":
            code = not code
        if c == "|" and not code:
            cells.append("".join(cell).strip())
            cell = []
        else:
            cell.append(c)
        i += 1
    if "".join(cell).strip():
        cells.append("".join(cell).strip())
    return cells


def _is_table(head, below):
    return "-" in below and bool(_delimiter.match(below)) and len(_cells(head)) == len(_cells(below))


def _table(lines, i):
    align = []
    for c in _cells(lines[i + 1]):
        side = (c.startswith(":"), c.endswith(":"))
        name = {(True, True): "center", (True, False): "left", (False, True): "right"}.get(side)
        align.append(f' style="text-align:{name}"' if name else "")
    row = lambda tag, cells: "<tr>" + "".join(
        f"<{tag}{a}>{inline(c)}</{tag}>" for a, c in zip(align, cells + [""] * (len(align) - len(cells)))
    ) + "</tr>\n"
    out = ["<table>\n<thead>\n", row("th", _cells(lines[i])), "</thead>\n"]
    i += 2
    rows = []
    while i < len(lines) and "|" in lines[i] and _continues(lines[i]):
        rows.append(row("td", _cells(lines[i])))
        i += 1
    if rows:
        out += ["<tbody>\n", *rows, "</tbody>\n"]
    out.append("</table>\n")
    return i, "".join(out)


def inline(text):
    """Return the HTML of the text inside one block."""
    return _Inline(text, 0).html()


class _Inline:
    """Reads inline text once, left to right. Marks of emphasis are kept as parts of their own
    until their partners turn up; those that never do are text."""

    def __init__(self, text, depth):
        self.text, self.depth = text, depth  # of labels: a link holds no link, an image's label few
        self.parts = []
        self.open = []  # [index in parts, char, count, may close]
        self.no_ticks = {}  # length of a run of ticks -> no such run from here on
        self.pairs = None  # "[" -> its "]", found in one go when the first one is met

    def html(self):
        text, i, n = self.text, 0, len(self.text)
        while i < n:
            m = _special.search(text, i)
            if not m:
                self.parts.append(html.escape(text[i:]))
                break
            if m.start() > i:
                self.parts.append(html.escape(text[i:m.start()]))
            i = self.one(m.start())
        return "".join(self.parts)

    def one(self, i):
        """Read what begins at the special character at i; return where it ends."""
        text = self.text
        c = text[i]
        if c == "\\":
            if text[i + 1:i + 2] == "\n":
                self.parts.append("<br>\n")
                return i + 2
            if text[i + 1:i + 2] in PUNCTUATION and i + 1 < len(text):
                self.parts.append(html.escape(text[i + 1]))
                return i + 2
        elif c == "\n":
            if self.parts and self.parts[-1].endswith("  "):
                self.parts[-1] = self.parts[-1].rstrip(" ") + "<br>"
            self.parts.append("\n")
            return i + 1
        elif c == "`":
            return self.code(i)
        elif c in "*_~":
            return self.mark(i)
        elif c == "<" and (m := _autolink.match(text, i)):
            self.parts.append(f'<a href="{html.escape(m[1])}">{html.escape(m[1])}</a>')
            return m.end()
        elif c == "&" and (m := _entity.match(text, i)):
            self.parts.append(html.escape(html.unescape(m[0])))
            return m.end()
        elif c == "[" and self.depth == 0:
            if end := self.link(i, False):
                return end
        elif c == "!" and text[i + 1:i + 2] == "[" and self.depth < 3:
            if end := self.link(i + 1, True):
                return end
        self.parts.append(html.escape(c))
        return i + 1

    def code(self, i):
        run = _ticks.match(self.text, i)
        count, at = len(run[0]), run.end()
        if not self.no_ticks.get(count):
            for m in _ticks.finditer(self.text, at):
                if len(m[0]) == count:
                    body = self.text[at:m.start()].replace("\n", " ")
                    if body.strip() and body[0] == body[-1] == " ":
                        body = body[1:-1]
                    self.parts.append(f"<code>{html.escape(body)}</code>")
                    return m.end()
            self.no_ticks[count] = True  # so that ten thousand lone ticks cost one search
        self.parts.append(run[0])
        return at

    def mark(self, i):
        text = self.text
        run = _run.match(text, i)
        c, count, end = run[0][0], len(run[0]), run.end()
        before, after = text[i - 1:i] or " ", text[end:end + 1] or " "
        space = lambda s: s.isspace()
        punct = lambda s: s in PUNCTUATION
        left = not space(after) and (not punct(after) or space(before) or punct(before))
        right = not space(before) and (not punct(before) or space(after) or punct(after))
        can_open = left and (c != "_" or not right or punct(before))
        can_close = right and (c != "_" or not left or punct(after))
        if c == "~" and count != 2:
            can_open = can_close = False
        if can_close:
            count = self.close(c, count, can_open)
        if count and can_open and len(self.open) < 200:
            self.open.append([len(self.parts), c, count, can_close])
        if count:
            self.parts.append(c * count)
        return end

    def close(self, c, count, both):
        """Pair a closing run with open ones; return how many characters are left over."""
        k = len(self.open) - 1
        while count and k >= 0:
            at, oc, ocount, oboth = self.open[k]
            if oc != c or (both or oboth) and (count + ocount) % 3 == 0 and (count % 3 or ocount % 3):
                k -= 1
                continue
            use = 2 if count >= 2 and ocount >= 2 else 1
            tag = "del" if c == "~" else "strong" if use == 2 else "em"
            left = ocount - use
            # What is left of the opening run stays before the tag as text, still open.
            self.parts[at] = c * left
            self.parts.insert(at + 1, f"<{tag}>")
            self.parts.append(f"</{tag}>")
            del self.open[k + 1:]
            if left:
                self.open[k][2] = left
            else:
                self.open.pop()
                k -= 1
            count -= use
        return count

    def pair(self, i):
        """Return where the "]" of the "[" at i is, or None."""
        if self.pairs is None:
            self.pairs, stack = {}, []
            for m in re.finditer(r"\\.|[\[\]]", self.text, re.S):
                if m[0] == "[":
                    stack.append(m.start())
                elif m[0] == "]" and stack:
                    self.pairs[stack.pop()] = m.start()
        return self.pairs.get(i)

    def link(self, i, image):
        """Read [label](address "title") at i; return where it ends, or None."""
        text, j = self.text, self.pair(i)
        if j is None:
            return None
        label = text[i + 1:j]
        target = _target(text, j + 1)
        if target is None:
            return None
        url, name, end = target
        extra = f' title="{html.escape(name)}"' if name else ""
        safe = safe_url(url)
        if image:
            plain = re.sub(r"<[^>]*>", "", _Inline(label, self.depth + 1).html())
            self.parts.append(f'<img src="{safe}" alt="{plain}"{extra}>')
        else:
            self.parts.append(f'<a href="{safe}"{extra}>{_Inline(label, self.depth + 1).html()}</a>')
        return end


def _target(text, i):
    """Read (address "title") at i; return (address, title, end) or None."""
    if text[i:i + 1] != "(":
        return None
    m = re.compile(r"\(\s{0,20}(?:<([^<>\n]{0,2000})>|([^\s()<>]{0,2000}(?:\([^\s()<>]{0,2000}\)[^\s()<>]{0,2000})?))"
                   r"(?:\s{1,20}(?:\"([^\"]{0,500})\"|'([^']{0,500})'))?\s{0,20}\)").match(text, i)
    if not m:
        return None
    unescape = lambda s: html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", s or ""))
    return unescape(m[1] if m[1] is not None else m[2]), unescape(m[3] or m[4]), m.end()


def safe_url(url):
    """Return an address fit for an attribute, "#" if its scheme is not one that is allowed."""
    # Browsers leave out control characters and spaces before they look for a scheme.
    bare = re.sub(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028\u2029\ufeff]", "", url)
    m = _scheme.match(bare)
    if m and m[1].lower() not in SCHEMES:
        return "#"
    if not m and ":" in re.split(r"[/?#]", bare, maxsplit=1)[0]:
        return "#"
    return html.escape(re.sub(r"[\x00-\x20\x7f]", lambda c: "%%%02X" % ord(c[0]), url))
