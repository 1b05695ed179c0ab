"""Says what a CSV holds, column by column. The body is read as it arrives and never held."""

import summary
from brasa import Response


def handle(event, context):
    if event.method == "GET":
        return Response({"error": "send a CSV as the body: curl --data-binary @orders.csv …"}, status=405, headers={"Allow": "POST"})
    delimiter = event.query.get("delimiter")
    if delimiter is not None and len(delimiter) != 1:
        return Response({"error": "the delimiter must be one character"}, status=400)
    try:
        return summary.summarize(summary.text_lines(event.stream()), delimiter)
    except summary.BadTable as e:
        return Response({"error": str(e)}, status=400)
