from datetime import datetime, timezone


def main(args):
    return {"date": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
