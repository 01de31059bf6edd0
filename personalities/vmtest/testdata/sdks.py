# Loads the official SDKs for Python; then each line of standard input names one, with which a model is called until that is refused. Prints what
# happened as JSON. The keys are in the environment.
import json
import sys

from anthropic import Anthropic
from openai import OpenAI


def drain(stream):
    return sum(1 for _ in stream)


def anthropic():
    client = Anthropic()
    ask = {"model": "claude-sonnet-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    return lambda: client.messages.create(**ask), lambda: drain(client.messages.create(stream=True, **ask))


def responses():
    client = OpenAI()
    ask = {"model": "gpt-5", "input": "hi"}
    return lambda: client.responses.create(**ask), lambda: drain(client.responses.create(stream=True, **ask))


sdks = {"anthropic": anthropic(), "responses": responses()}
for line in sys.stdin:
    plain, stream = sdks[line.strip()]
    out = {"ok": 0, "status": 0, "message": ""}
    try:
        for call in (plain, stream, plain, stream):
            call()
            out["ok"] += 1
    except Exception as err:
        out["status"] = getattr(err, "status_code", 0)
        out["message"] = str(err)
    print(json.dumps(out), flush=True)
