"""A webhook server, as a small operator would run one: it labels ConfigMaps, refuses bad ones and converts boats.

Arguments: its certificate and its key. The first line that it prints is its port; it serves until it is ended.
"""

import base64
import http.server
import json
import ssl
import sys


def mutate(request):
    """Says who made the object."""
    value = request["userInfo"]["username"]
    patch = [{"op": "add", "path": "/data/maker", "value": value}]
    encoded = base64.b64encode(json.dumps(patch).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


def validate(request):
    """Sees what was mutated, and refuses what is bad."""
    data = request["object"]["data"]
    if data.get("taste") == "bad":
        message = f"{data['maker']} may not make bad maps"
        return {"allowed": False, "status": {"code": 403, "reason": "Forbidden", "message": message}}
    return {"allowed": True, "warnings": ["tasted"]}


def convert(request):
    """Boats have `oars` in v1 and `pairs` of them in v2."""
    converted = []
    for boat in request["objects"]:
        if boat["apiVersion"] != request["desiredAPIVersion"]:
            if "oars" in boat:
                boat["pairs"] = boat.pop("oars") // 2
            elif "pairs" in boat:
                boat["oars"] = boat.pop("pairs") * 2
            boat["apiVersion"] = request["desiredAPIVersion"]
        converted.append(boat)
    return {"result": {"status": "Success"}, "convertedObjects": converted}


ANSWERS = {"/mutate": mutate, "/validate": validate, "/convert": convert}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each review with a review of the same version."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        response = {"uid": request["uid"], **ANSWERS[self.path.split("?")[0]](request)}
        answer = {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    certificate, key = sys.argv[1:]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
