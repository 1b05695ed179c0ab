import json


def main(args):
    params = dict(sorted(args.items()))
    print(json.dumps(params, indent=2))
    return {"params": params}
