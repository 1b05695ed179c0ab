def main(args):
    """Called once per call with the input, parsed from JSON; what it returns is the answer."""
    name = args.get("name", "world")
    print("greeting", name)  # goes to the logs: brasa logs
    return {"greeting": f"Hello, {name}!"}
