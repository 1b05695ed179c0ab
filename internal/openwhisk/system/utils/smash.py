def main(args):
    name = args.pop("$fieldName", None)
    if not isinstance(name, str):
        return {"error": "Expected an argument '$fieldName' of type 'string'."}
    return {name: args}
