#!/usr/bin/env python3
"""serve_campaign.py PROGRAM MODEL [--requests N] [--kills N] [--only PART]: attacks and measures a server. Its parts:

requests  malformed, oversized, cut, path-traversing, flooding and non-UTF-8 requests, then more connections than the server serves
kills     kill -9 at random moments, with a new start on the same folders
disk      a full disk (a tmpfs of 256 KiB; needs root)
speed     images of eight clients at once against `brume sample`, throughput with and without batches, and what a request costs

Ends with 1 if an answer is not 4xx with a JSON error, if the server ends, if its memory grows by more than 2 %, if its history is damaged,
if images differ, if batches are less than 1.3 times as fast, or if a request costs more than 5 ms. Prints one line per part."""
import argparse
import concurrent.futures
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
    def __init__(self, program, model, folder, *options):
        words = [program, "serve", model, "--runs", folder, "--port", "0", "--threads", "1", *options]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
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

    def made(self, body):
        """Submits a job and waits for its end."""
        status, answer = self.request("POST", "/api/v1/jobs", body)
        job = json.loads(answer)
        if status == 201:
            self.request("GET", f"/api/v1/jobs/{job['id']}/events")
            job = json.loads(self.request("GET", f"/api/v1/jobs/{job['id']}")[1])
        return status, job

    def memory(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self):
        """Sends SIGTERM. Returns the exit code and the seconds that the end took."""
        begin = time.time()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30), time.time() - begin


def form(draw, junk):
    """A form that is wrong somewhere."""
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    quotes = b'; filename="'.join([b'"'] * 900)
    return draw.choice([head + junk, head + junk + b"\r\n--x--", b"--x" * 5000, b'--x\r\nContent-Disposition: form-data; name="' + quotes,
                        b"--x\r\nX: " + b"y" * 100000 + b"\r\n\r\n\r\n--x--", b"--x\r\n\r\n" * 2000 + b"--x--", b"--x--", junk])


def malformed(draw, port):
    host = f"Host: 127.0.0.1:{port}\r\n".encode()
    paths = [b"/api/v1/jobs", b"/v1/images/generations", b"/v1/images/edits", b"/sdapi/v1/txt2img", b"/sdapi/v1/img2img", b"/sdapi/v1/png-info",
             b"/api/v1/check", b"/api/v1/plot/samplers"]
    path = draw.choice(paths)

    def post(body, extra=b"", length=None):
        return b"POST " + path + b" HTTP/1.1\r\n" + host + b"Content-Length: %d\r\n" % (len(body) if length is None else length) + extra + b"\r\n" + body

    junk = draw.randbytes(draw.randrange(1, 400))
    outside = draw.choice([b"/../../etc/passwd", b"/%2e%2e/%2e%2e/etc/passwd", b"/api/v1/runs/..%2f..%2fetc", b"/api/v1/jobs/..%2f..",
                           b"/api/v1/jobs/x/images/..%2f..%2f0.png", b"//etc/passwd", b"/%00", b"/%ff%fe", b"/%c0%ae%c0%ae/",
                           b"/v1/models/..%2f..%2fetc%2fpasswd", b"/api/v1/runs/x/grids/..%2f0.png"])
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
        lambda: post(b'{"prompt":[' + b"0," * draw.randrange(100000, 300000) + b"0]}"),
        lambda: post(b'{"seed":1e30,"steps":-1,"image":"%%","prompt":"a","init_images":["%%"]}'),
        lambda: post(b'{"prompt":"\xff\xfe"}'),
        lambda: b"GET / HTTP/1.1\r\n" + host + b"".join(b"X-%d: y\r\n" % i for i in range(draw.randrange(4000, 6000))) + b"\r\n",
        lambda: b"GET / HTTP/1.1\r\n" + host + b"X: " + b"y" * draw.randrange(40000, 90000) + b"\r\n\r\n",
        lambda: b"GET /none HTTP/1.1\r\n" + host + b"Range: bytes=" + b"0-1," * draw.randrange(1, 1900) + b"2-3\r\n\r\n",
        lambda: b"GET /" + b"a" * draw.randrange(3000, 20000) + b" HTTP/1.1\r\n" + host + b"\r\n",
        lambda: post(b"{}", b"Content-Encoding: gzip\r\n"),
        lambda: post(form(draw, junk), b"Content-Type: multipart/form-data; boundary=x\r\n"),
        lambda: post(form(draw, junk), draw.choice([b"Content-Type: multipart/form-data\r\n", b"Content-Type: multipart/form-data; boundary=\"\r\n"])),
        lambda: b"POST " + path + b" HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n" + junk,
        lambda: b"POST " + path + b" HTTP/1.1\r\n" + host + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + junk,
        lambda: post(valid, b"Origin: http://evil.example\r\n"),
        lambda: b"GET /api/v1/jobs HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ]
    return draw.choice(kinds)()


def crowd(server):
    """Opens slow connections, more than are served at once. Returns the status and the seconds of a request among them."""
    slow = []
    for _ in range(100):
        slow.append(socket.create_connection(("127.0.0.1", server.port)))
        slow[-1].sendall(b"GET / HT")
    begin = time.time()
    status = server.request("GET", "/api/v1/models")[0]
    seconds = time.time() - begin
    for s in slow:
        s.close()
    return status, seconds


def refuse_all(program, model, asked):
    folder = tempfile.mkdtemp(prefix="brume_campaign_")
    server = Server(program, model, folder)
    draw, wrong, closed, before = random.Random(1), 0, 0, 0
    for i in range(asked.requests):
        if i == asked.requests // 10:
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
    growth = server.memory() / before - 1
    status, seconds = crowd(server)
    code, end = server.stop()
    print(f"{asked.requests} requests: {wrong} wrong answers, {closed} closed without one, memory {before / 1e6:.1f} MB, {growth:+.2%}; "
          f"among 100 slow connections {status} in {seconds:.2f} s; SIGTERM: {code} in {end:.2f} s")
    shutil.rmtree(folder)
    return wrong == 0 and growth < 0.02 and status == 200 and code == 0 and end < 5


def kill_often(program, model, asked):
    folder = tempfile.mkdtemp(prefix="brume_campaign_")
    draw, faults, known, states = random.Random(2), 0, set(), {}
    for _ in range(asked.kills + 1):
        server = Server(program, model, folder)
        listed = {j["id"] for j in json.loads(server.request("GET", "/api/v1/jobs?limit=1000")[1])["jobs"]}
        faults += len(known - listed)
        for job in known & listed:
            status, body = server.request("GET", f"/api/v1/jobs/{job}")
            answer = json.loads(body)
            whole = status == 200 and answer["state"] in ("done", "interrupted")
            for image in answer.get("images", []) if whole else []:
                picture = server.request("GET", image["url"])[1]
                whole = whole and picture.startswith(b"\x89PNG") and picture[-8:-4] == b"IEND"
            whole = whole and (answer["state"] != "done" or len(answer["images"]) == 4)
            states[job] = answer.get("state")
            faults += not whole
        for steps in (2, 40, 41):
            known.add(json.loads(server.request("POST", "/api/v1/jobs", {"count": 4, "steps": steps})[1])["id"])
        time.sleep(draw.uniform(0, asked.wait))
        server.process.kill()
        server.process.wait()
    shutil.rmtree(folder)
    done, interrupted = (sum(state == s for state in states.values()) for s in ("done", "interrupted"))
    print(f"{asked.kills} kills: {len(states)} jobs, {done} done, {interrupted} interrupted, {faults} damaged")
    return faults == 0 and done > 0 and interrupted > 0


def fill_disk(program, model, _):
    folder = tempfile.mkdtemp(prefix="brume_campaign_")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=False).returncode != 0:
        print("disk: skipped, a tmpfs cannot be mounted")
        return True
    try:
        server = Server(program, model, folder)
        failed, reason = 0, ""
        for seed in range(200):
            status, job = server.made({"count": 4, "seed": seed})
            if status == 507 or job.get("state") == "failed":
                failed, reason = failed + 1, (job.get("error") or {}).get("message", "")
            if failed == 5:
                break
        alive = server.request("GET", "/api/v1/models")[0]
        jobs = json.loads(server.request("GET", "/api/v1/jobs?limit=1000")[1])["jobs"]
        for job in jobs[:20]:
            server.request("DELETE", f"/api/v1/jobs/{job['id']}")
        state = server.made({"count": 1, "seed": 1})[1].get("state")
        code, end = server.stop()
    finally:
        subprocess.run(["umount", folder], check=False)
    shutil.rmtree(folder)
    print(f"disk: {failed} jobs failed ({reason}), then {alive}; after removing jobs: {state}; SIGTERM: {code} in {end:.2f} s")
    return failed == 5 and alive == 200 and state == "done" and code == 0


def run_at_once(server, count, steps):
    """Returns the images per second of `count` requests that wait together, and their ids by seed."""
    begin = time.time()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        jobs = list(pool.map(lambda seed: server.made({"seed": seed, "steps": steps})[1], range(count)))
    return count / (time.time() - begin), [j["id"] for j in jobs]


def measure(program, model, asked):
    folder = tempfile.mkdtemp(prefix="brume_campaign_")
    rates = {}
    for batch in ("1", "8"):
        server = Server(program, model, folder, "--batch", batch)
        server.made({"seed": 0, "steps": 1})
        rates[batch], ids = run_at_once(server, 32, asked.steps)
        if batch == "1":
            server.stop()
    subprocess.run([program, "sample", model, "--seed", "5", "--steps", str(asked.steps), "-n", "1", "--threads", "1", "-o", folder + "/out"],
                   check=True, stdout=subprocess.DEVNULL)
    picture = server.request("GET", f"/api/v1/jobs/{ids[5]}/images/0.png")[1]
    with open(os.path.join(folder, "one.png"), "wb") as file:
        file.write(picture)
    same = pixels(os.path.join(folder, "one.png")) == pixels(os.path.join(folder, "out", "00000.png"))
    times, inside = [], []
    for seed in range(40):
        begin = time.time()
        _, body = server.request("POST", "/v1/images/generations", {"prompt": "", "seed": seed, "steps": 1})
        times.append(time.time() - begin)
        job = json.loads(server.request("GET", "/api/v1/jobs?limit=1")[1])["jobs"][0]
        inside.append(job["seconds"])
    cost = sorted(t - i for t, i in zip(times, inside))[len(times) // 2]
    server.stop()
    shutil.rmtree(folder)
    gain = rates["8"] / rates["1"]
    print(f"speed: {rates['1']:.2f} images/s one at a time, {rates['8']:.2f} in batches of 8 (x{gain:.2f}); "
          f"a request costs {cost * 1e3:.2f} ms besides sampling; the bits of brume sample: {same}; load {os.getloadavg()[0]:.1f}")
    return gain >= 1.3 and cost < 0.005 and same


def pixels(path):
    """Returns the compressed pixels of a PNG, without its texts."""
    with open(path, "rb") as file:
        data, at, found = file.read(), 8, b""
    while at < len(data):
        size = int.from_bytes(data[at:at + 4], "big")
        if data[at + 4:at + 8] in (b"IHDR", b"IDAT"):
            found += data[at + 8:at + 8 + size]
        at += 12 + size
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--wait", type=float, default=0.6, help="seconds before a kill, at most")
    parser.add_argument("--steps", type=int, default=20, help="of the images whose speed is measured")
    parts = {"requests": refuse_all, "kills": kill_often, "disk": fill_disk, "speed": measure}
    parser.add_argument("--only", choices=parts)
    asked = parser.parse_args()
    results = [part(asked.program, os.path.abspath(asked.model), asked) for name, part in parts.items() if asked.only in (None, name)]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
