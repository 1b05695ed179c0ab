"""Fetches a web page and says what is on it. Needs network "egress"."""

import page
from brasa import Response


def handle(event, context):
    url = event.get("url")
    if not isinstance(url, str) or not url:
        return Response({"error": 'say which page: {"url": "https://example.com/"}'}, status=400)
    try:
        # A second less than the call has, so that the answer says what took so long.
        return page.fetch(url, min(page.SECONDS, max(1.0, context.remaining_ms() / 1000 - 1)))
    except page.FetchError as e:
        return Response({"error": str(e), "url": url[:2000]}, status=502)
