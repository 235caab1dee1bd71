"""A server on this machine that speaks OpenAI's protocol, for tests of teachers and judges; each test says how well."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def said(content, reasoning=None, finish="stop", **more):
    """A reply in the protocol."""
    message = {"role": "assistant", "content": content} | ({"reasoning_content": reasoning} if reasoning else {})
    usage = {"prompt_tokens": 3, "completion_tokens": 10, "total_tokens": 13}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return 200, {"id": "x", "model": "deepseek-r1", "choices": [choice], "usage": usage} | more


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that does not wait for its answer is part of the tests."""


class Server:
    """``answer(body, how often this question was asked) -> (status, JSON or bytes, headers)``"""

    def __init__(self, answer):
        self.seen, self.headers, self.under_way, self.most, lock = [], [], 0, 0, threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                question = body["messages"][0]["content"] if "messages" in body else None
                with lock:
                    outer.seen.append((self.path, body))
                    outer.headers.append(dict(self.headers))
                    count = sum(other["messages"][0]["content"] == question for _, other in outer.seen)
                    outer.under_way += 1
                    outer.most = max(outer.most, outer.under_way)
                try:
                    status, said, *more = answer(body, count)
                except ConnectionAbortedError:
                    self.close_connection = True
                    return
                finally:
                    with lock:
                        outer.under_way -= 1
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                for name, value in {"content-length": str(len(data)), **(more[0] if more else {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    @property
    def asked(self):
        return [body["messages"][0]["content"] for _, body in self.seen]


@contextmanager
def server(answer):
    made = Server(answer)
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.http.shutdown()
        made.http.server_close()
