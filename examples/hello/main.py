"""The smallest function: a JSON object comes in, another goes out."""


def main(args):
    name = args.get("name") or "world"
    print(f"greeting {name}")  # what a function prints is its log
    return {"greeting": f"Hello, {name}!"}
