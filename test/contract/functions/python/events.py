"""Handlers that take the event."""
import brasa


def handle(event, context):
    if event.path == "/echo":
        return brasa.Response(event.stream(), headers={"Content-Type": "application/octet-stream"})
    if event.path == "/size":
        return {"size": len(event.body)}
    if event.path == "/ignore":
        return "ignored"
    if event.path == "/request":
        return {
            "method": event.method,
            "query": event.query,
            "all": event.query.all("a"),
            "header": event.headers["x-thing"],
            "args": event.args,
            "text": event.text(),
        }
    return brasa.Response("none", 404)
