import os


def main(args):
    return {"namespace": os.environ["__OW_NAMESPACE"]}
