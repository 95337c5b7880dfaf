#!/usr/bin/env python3
"""serve_campaign.py PROGRAM MODEL [--requests N] [--kills N]: sends a server malformed, oversized, cut, path-traversing, flooding and
non-UTF-8 requests, then kills it at random moments. Ends with 1 if an answer is not 4xx with a JSON error, if the server ends, if its memory
grows by more than 2 %, or if its history is damaged. Prints one line per part."""
import argparse
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time


class Server:
    def __init__(self, program, model, folder):
        words = [program, "serve", model, "--runs", folder, "--port", "0", "--threads", "1"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read()

    def send(self, data):
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as s:
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                answer = b""
                while piece := s.recv(65536):
                    answer += piece
            except OSError:
                return b""
        return answer

    def memory(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def malformed(draw, port):
    host = f"Host: 127.0.0.1:{port}\r\n".encode()
    paths = [b"/api/v1/jobs", b"/v1/images/generations", b"/v1/images/edits", b"/sdapi/v1/txt2img", b"/sdapi/v1/img2img", b"/sdapi/v1/png-info"]
    path = draw.choice(paths)

    def post(body, extra=b"", length=None):
        return b"POST " + path + b" HTTP/1.1\r\n" + host + b"Content-Length: %d\r\n" % (len(body) if length is None else length) + extra + b"\r\n" + body

    junk = draw.randbytes(draw.randrange(1, 400))
    outside = draw.choice([b"/../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/api/v1/runs/..%2f..%2fetc", b"/api/v1/jobs/..%2f..",
                           b"/api/v1/jobs/x/images/..%2f..%2f0.png", b"//etc/passwd", b"/%00", b"/%ff%fe", b"/%c0%ae%c0%ae/"])
    valid = json.dumps({"prompt": "a", "steps": 0, "image": "AAAA"}).encode()
    kinds = [
        lambda: junk + b"\r\n\r\n",
        lambda: b"GET " + outside + b" HTTP/1.1\r\n" + host + b"\r\n",
        lambda: post(junk),
        lambda: post(valid[: draw.randrange(len(valid))]),
        lambda: post(valid, length=len(valid) + draw.randrange(1, 1000)),
        lambda: post(b"{}", length=10**draw.randrange(9, 25)),
        lambda: post(b'{"prompt":"' + b"a" * draw.randrange(200000, 400000) + b'","image":"?","init_images":["?"]}'),
        lambda: post(b"[" * draw.randrange(101, 50000)),
        lambda: post(b'{"seed":1e30,"steps":-1,"image":"%%","prompt":"a","init_images":["%%"]}'),
        lambda: post(b'{"prompt":"\xff\xfe"}'),
        lambda: b"GET / HTTP/1.1\r\n" + host + b"".join(b"X-%d: y\r\n" % i for i in range(draw.randrange(3000, 6000))) + b"\r\n",
        lambda: b"GET / HTTP/1.1\r\n" + host + b"X: " + b"y" * draw.randrange(40000, 90000) + b"\r\n\r\n",
        lambda: b"GET /" + b"a" * draw.randrange(3000, 20000) + b" HTTP/1.1\r\n" + host + b"\r\n",
        lambda: post(b"{}", b"Content-Encoding: gzip\r\n"),
        lambda: post(b"--x\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n" + junk, b"Content-Type: multipart/form-data; boundary=x\r\n"),
        lambda: b"POST " + path + b" HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n" + junk,
        lambda: post(valid, b"Origin: http://evil.example\r\n"),
        lambda: b"GET /api/v1/jobs HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ]
    return draw.choice(kinds)()


def refuse_all(program, model, count):
    folder = tempfile.mkdtemp(prefix="brume_campaign_")
    server = Server(program, model, folder)
    draw, wrong, closed, before = random.Random(1), 0, 0, 0
    for i in range(count):
        if i == count // 10:
            before = server.memory()
        data = malformed(draw, server.port)
        answer = server.send(data)
        if server.process.poll() is not None:
            sys.exit(f"the server ended after request {i}: {data[:200]!r}")
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head.split(b" ")[1:2]
        if not answer:
            closed += 1
        elif not status or not status[0].startswith(b"4") or (body and b'"error"' not in body):
            wrong += 1
            print(f"request {i}: {data[:120]!r}\n  answer {answer[:200]!r}")
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for s in slow:
        s.sendall(b"GET / HT")
    begin = time.time()
    status = server.request("GET", "/api/v1/models")[0]
    growth = server.memory() / before - 1
    print(f"{count} requests: {wrong} wrong answers, {closed} closed without one, memory {growth:+.2%}, "
          f"with 20 slow connections {status} in {time.time() - begin:.2f} s")
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(10)
    shutil.rmtree(folder)
    return wrong == 0 and growth < 0.02 and status == 200 and code == 0


def kill_often(program, model, count):
    folder = tempfile.mkdtemp(prefix="brume_campaign_")
    draw, faults, known = random.Random(2), 0, set()
    for _ in range(count):
        server = Server(program, model, folder)
        for job in list(known):
            status, body = server.request("GET", f"/api/v1/jobs/{job}")
            answer = json.loads(body)
            whole = status == 200 and answer["state"] in ("done", "interrupted")
            for image in answer.get("images", []) if whole else []:
                picture = server.request("GET", image["url"])[1]
                whole = whole and picture.startswith(b"\x89PNG") and picture[-8:-4] == b"IEND"
            faults += not whole
        for seed in range(3):
            known.add(json.loads(server.request("POST", "/api/v1/jobs", {"count": 4, "steps": 40, "seed": seed})[1])["id"])
        time.sleep(draw.uniform(0, 0.6))
        server.process.kill()
        server.process.wait()
    shutil.rmtree(folder)
    print(f"{count} kills: {len(known)} jobs, {faults} damaged")
    return faults == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--kills", type=int, default=50)
    asked = parser.parse_args()
    good = refuse_all(asked.program, os.path.abspath(asked.model), asked.requests)
    good = kill_often(asked.program, os.path.abspath(asked.model), asked.kills) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
