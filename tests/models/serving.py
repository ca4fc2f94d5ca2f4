"""A small server of OpenAI's protocol over a real tiny checkpoint, and servers that do it wrong."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

FAULTS = ("no_logprobs", "no_echo", "no_top", "other_tokens", "refuses_echo", "garbage", "no_choices", "status", "late")
"""Ways to do it wrong; ``status=401`` and ``late=3`` (right answers, then 500) take a number."""


class Served(ThreadingHTTPServer):
    """The server, what it was asked, and how it errs."""

    daemon_threads = True

    def __init__(self, checkpoint: Path, fault: str = "", *, most: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.fault, _, self.number = fault.partition("=")
        self.max_value = most
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def word(self, checkpoint: Path, *, name: str = "served", chat: bool = False, more: str = "") -> str:
        """A model word for it."""
        kind, path = ("local-chat-completions", "chat/completions") if chat else ("local-completions", "completions")
        tokenizer = "" if chat else f",tokenizer={checkpoint}"
        return f"{name}={kind}:model=tiny,base_url={self.address}/{path}{tokenizer}{more}"

    def write(self, ids: list[int], limit: int, stop: list[str], temperature: float) -> tuple[str, int, str]:
        """A text, its tokens, and why it ended."""
        written: list[int] = []
        with torch.no_grad():
            while len(written) < limit:
                logits = self.model(torch.tensor([ids + written])).logits[0, -1]
                if temperature:
                    token = int(torch.multinomial(torch.softmax(logits / temperature, -1), 1))
                else:
                    token = int(logits.argmax())
                written.append(token)
                text = str(self.tokenizer.decode(written, skip_special_tokens=True))
                if token == self.tokenizer.eos_token_id:
                    return text, len(written), "stop"
                cuts = [text.find(word) for word in stop if word in text]
                if cuts:
                    return text[: min(cuts)], len(written), "stop"
        return str(self.tokenizer.decode(written, skip_special_tokens=True)), len(written), "length"

    def logprobs(self, ids: list[int]) -> dict[str, Any]:
        """Of each token of a prompt: its log-probability, and the most probable token's."""
        with torch.no_grad():
            table = torch.log_softmax(self.model(torch.tensor([ids])).logits[0], -1)
        words = [str(self.tokenizer.decode([token])) for token in ids]
        values = [None, *(float(table[i, token]) for i, token in enumerate(ids[1:]))]
        best = [None, *({str(self.tokenizer.decode([int(row.argmax())])): float(row.max())} for row in table[:-1])]
        return {"tokens": words, "token_logprobs": values, "top_logprobs": best}


class _Handler(BaseHTTPRequestHandler):
    server: Served

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        models = [{"id": "tiny", **({"max_model_len": self.server.max_value} if self.server.max_value else {})}]
        self._send(200, {"object": "list", "data": models} if self.path == "/v1/models" else {"error": "no such path"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.asked.append(asked)
            server.headers.append(dict(self.headers))
            n_asked = len(server.asked)
        key = self.headers.get("Authorization", "")
        if server.fault == "status":
            self._send(int(server.number), {"error": {"message": f"the server says no to {key}"}})
        elif server.fault == "late" and n_asked > int(server.number):
            self._send(500, {"error": {"message": "out of memory"}})
        elif server.fault == "refuses_echo" and asked.get("echo"):
            self._send(400, {"error": {"message": "Only no echo is supported"}})
        elif server.fault == "garbage":
            self._send(200, None)
        elif server.fault == "no_choices":
            self._send(200, {"answer": "red"})
        elif self.path == "/v1/completions":
            self._send(200, self._completions(asked))
        elif self.path == "/v1/chat/completions":
            self._send(200, self._chat(asked))
        else:
            self._send(404, {"detail": "Not Found"})

    def _completions(self, asked: dict[str, Any]) -> dict[str, Any]:
        server = self.server
        prompts = asked["prompt"]
        prompts = [prompts] if isinstance(prompts, str) or isinstance(prompts[0], int) else prompts
        choices = []
        n_read = 0
        for index, prompt in enumerate(prompts):
            ids = server.tokenizer(prompt).input_ids if isinstance(prompt, str) else list(prompt)
            if server.fault == "other_tokens":
                ids = [1, *ids]
            n_read += len(ids)
            stop = asked.get("stop") or []
            text, n_tokens, reason = server.write(ids, asked["max_tokens"], stop, asked.get("temperature", 0))
            choice: dict[str, Any] = {"index": index, "text": text, "finish_reason": reason, "logprobs": None}
            if asked.get("logprobs") and server.fault != "no_logprobs":
                choice["logprobs"] = server.logprobs(ids)
                for values in choice["logprobs"].values():
                    values.append(values[-1])  # the token that it was made to write
                if server.fault == "no_echo":
                    choice["logprobs"] = {name: values[-1:] for name, values in choice["logprobs"].items()}
                if server.fault == "no_top":
                    choice["logprobs"]["top_logprobs"] = None
            choices.append(choice)
        usage = {"prompt_tokens": n_read, "completion_tokens": n_tokens} if len(prompts) == 1 else {}
        return {"object": "text_completion", "choices": choices, **({"usage": usage} if usage else {})}

    def _chat(self, asked: dict[str, Any]) -> dict[str, Any]:
        server = self.server
        said = " ".join(f"{message['role']} : {message['content']}" for message in asked["messages"]) + " A :"
        ids = server.tokenizer(said).input_ids
        text, n_tokens, reason = server.write(ids, asked["max_tokens"], asked.get("stop") or [], 0)
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": len(ids), "completion_tokens": n_tokens}
        return {"choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage}

    def _send(self, status: int, content: Any) -> None:
        body = b"<html>Bad gateway</html>" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(checkpoint: Path, fault: str = "", *, most: int | None = None) -> Iterator[Served]:
    """A server that runs while the block does."""
    server = Served(checkpoint, fault, most=most)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
