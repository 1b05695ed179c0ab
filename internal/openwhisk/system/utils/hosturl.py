import os

EXTENSIONS = [".json", ".text", ".html", ".http"]


def main(args):
    web, trigger, path, ext = args.get("web") is True, args.get("trigger"), args.get("path") or "", args.get("ext")
    base = os.environ["__OW_API_HOST"] + "/api/v1"
    namespace = os.environ["__OW_NAMESPACE"]
    if web and trigger:
        return {"error": "triggers are not allowed for web actions."}
    if web and ext and ext not in EXTENSIONS:
        return {"error": "extension for web action must be one of " + ", ".join(EXTENSIONS) + "."}
    if trigger and "/" in path:
        return {"error": "triggers are not allowed in packages."}
    if web:
        url = f"{base}/web/{namespace}"
        if path:
            url += "/" + (path if "/" in path else "default/" + path) + (ext or ".json")
    else:
        url = f"{base}/namespaces/{namespace}/" + ("triggers" if trigger is True else "actions")
        if path:
            url += "/" + path
    return {"url": url}
