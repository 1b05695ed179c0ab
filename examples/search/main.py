"""Searches a text that is deployed with the code. The index is built once, when the code loads;
each call only reads it."""

import os
import time

import engine
from brasa import Response

_began = time.perf_counter()
INDEX = engine.Index(engine.read(os.path.join(os.path.dirname(__file__), "fables.txt")))
print(f"indexed {len(INDEX.documents)} texts, {len(INDEX.vocabulary)} words in {(time.perf_counter() - _began) * 1000:.1f} ms")


def handle(event, context):
    query = event.get("q", "")
    if not isinstance(query, str) or not query.strip():
        return Response({"error": 'say what to look for: ?q=slow+race, or {"q": "slow race"}'}, status=400)
    try:
        limit = min(max(int(event.get("limit", 10)), 1), 50)
    except (TypeError, ValueError):
        return Response({"error": "limit must be a number from 1 to 50"}, status=400)
    began = time.perf_counter()
    hits, total = INDEX.search(query, limit)
    return {"query": query, "total": total, "took_us": round((time.perf_counter() - began) * 1e6), "hits": hits}
