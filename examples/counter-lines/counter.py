#!/usr/bin/env python3
"""Counts by name. A line of JSON comes in on standard input for each call, one goes out on
descriptor 3; the process stays, and with it the counts. Nothing here is the platform's: any
program in any language that reads and writes lines can do the same."""

import json
import os
import sys

MAX_KEYS = 10_000

counts = {}


def answer(value):
    """Return the answer to one input."""
    if value is None:
        return {"counts": counts}
    if not isinstance(value, dict) or not isinstance(value.get("key"), str):
        raise ValueError('want {"key": "visits"}, or no input at all for every count')
    key, add = value["key"][:200], value.get("add", 1)
    if not isinstance(add, int) or isinstance(add, bool) or abs(add) > 2**53:
        raise ValueError("add must be a whole number")
    if key not in counts and len(counts) >= MAX_KEYS:
        raise ValueError(f"there are {MAX_KEYS} keys already")
    counts[key] = counts.get(key, 0) + add
    return {"key": key, "count": counts[key]}


with os.fdopen(3, "w", encoding="utf-8", newline="\n") as out:
    print(f"counting in process {os.getpid()}", flush=True)  # standard output is the log
    for line in sys.stdin:
        call = json.loads(line)
        try:
            reply = {"id": call["id"], "result": answer(call["input"])}
        except ValueError as e:
            reply = {"id": call["id"], "error": str(e)}
        out.write(json.dumps(reply) + "\n")
        out.flush()
