"""Renders Markdown as HTML that is safe to show."""

import html

import markdown
from brasa import Response

MAX_TEXT = 1 << 20

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 17px/1.6 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
pre {{ background: #f4f4f4; padding: .8rem; overflow: auto }} code {{ font-size: .9em }}
blockquote {{ border-left: 4px solid #ddd; margin-left: 0; padding-left: 1rem; color: #555 }}
table {{ border-collapse: collapse }} th, td {{ border: 1px solid #ccc; padding: .3rem .6rem }} img {{ max-width: 100% }}
textarea {{ width: 100%; height: 50vh; font: 15px/1.4 monospace }}
</style>
{body}
</html>
"""
FORM = """<h1>Markdown</h1>
<form method="post" action="?page=1"><textarea name="text" autofocus># Hello

Write *here*.</textarea><p><button>Render</button></form>"""

# The text is a stranger's; should a tag ever get through, the browser runs nothing of it.
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src http: https:; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
}


def handle(event, context):
    if event.method in ("GET", "HEAD"):
        return Response(PAGE.format(title="Markdown", body=FORM), headers=HEADERS)
    text = event.get("text", event.get("body", ""))
    if not isinstance(text, str):
        return Response({"error": 'send Markdown as the body, or JSON {"text": "…"}'}, status=400)
    if len(text) > MAX_TEXT:
        return Response({"error": f"the text has {len(text)} characters; at most {MAX_TEXT}"}, status=413)
    body = markdown.render(text)
    if event.query.get("page"):
        body = PAGE.format(title=html.escape(markdown.title(text) or "Markdown"), body=body)
    return Response(body, headers=HEADERS)
