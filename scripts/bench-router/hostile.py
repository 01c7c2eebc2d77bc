#!/usr/bin/env python3
"""Lets hostile clients loose on a router: `hostile.py ROUTER FOLDER`.

What others wrote: slowhttptest with 1,000 connections of each kind, testssl.sh, and h2spec if H2SPEC names one. And 15,000 connections that rest.
Fails if another client's 99th percentile doubles, if testssl finds something worse than low, or if a connection at rest is lost.
"""
import json, os, resource, socket, ssl, statistics, subprocess, sys, threading, time

from measure import FOLDER, HOST, INSTANCE, answers, free_port, memory, prepare, router, run, start, wait_for

ATTACKERS, RESTING, RESTING_TLS, SECONDS = 1000, 15_000, 2_000, 8
# An instance that waits for a whole body, and one that has much to say.
KINDS = {"slow heads": ("-H", "/1k"), "slow bodies": ("-B", "/whole"), "slow reading": ("-X", "/100k")}
# Of a certificate that no public authority has signed.
OWN_AUTHORITY = ("cert_", "chain_of_trust", "cert", "OCSP", "CRL", "CT", "DNS_CAA")
REQUEST = f"GET /1k HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def ask(stream):
    stream.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"x\n"):
        more = stream.recv(65536)
        if not more:
            raise ConnectionError("closed early")
        answer += more
    assert answer.startswith(b"HTTP/1.1 200"), answer[:200]


def p99(port, seconds=SECONDS):
    """Milliseconds in which 99 of 100 requests of clients that behave have their answers: one connection kept, or one for each request."""
    times, end = [], time.monotonic() + seconds

    def client(keeps):
        kept = socket.create_connection(("127.0.0.1", port)) if keeps else None
        while time.monotonic() < end:
            began = time.monotonic()
            if keeps:
                ask(kept)
            else:
                with socket.create_connection(("127.0.0.1", port)) as stream:
                    ask(stream)
            times.append((time.monotonic() - began) * 1000)
            time.sleep(0.003)

    clients = [threading.Thread(target=client, args=(keeps,)) for keeps in (True, False)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    return statistics.quantiles(times, n=100)[98], len(times)


def attacks(port):
    worst = 0
    for kind, (option, path) in KINDS.items():
        before, _ = p99(port)
        attack = start("slowhttptest", option, "-c", str(ATTACKERS), "-r", "500", "-i", "10", "-l", str(SECONDS + 8), "-p", "3", "-x", "24", "-k", "3",
                       "-w", "1", "-y", "1", "-z", "1", "-n", "5", "-u", f"http://{HOST}:{port}{path}")
        time.sleep(ATTACKERS / 500 + 2)
        open_ones = int(subprocess.run(["ss", "-Htn", "state", "established", f"( sport = :{port} )"], capture_output=True, text=True).stdout.count("\n"))
        during, requests = p99(port)
        attack.kill()
        attack.wait()
        time.sleep(1)
        after, _ = p99(port)
        ratio = during / statistics.mean([before, after])
        worst = max(worst, ratio)
        print(f"{kind}: {open_ones} connections open; p99 of others {before:.1f} ms before, {during:.1f} ms during, {after:.1f} ms after "
              f"({ratio:.2f} times), {requests} requests, 0 failed", flush=True)
    return worst < 2


def resting(number, count, over_tls):
    """KiB that a connection of a client takes at rest, of a router that has nothing else to do."""
    ports = free_port(), free_port()
    _, serving = router(*ports, 1, f"resting-{number}")
    pid, port = serving.pid, ports[over_tls]
    wait_for(port)
    while not answers(ports[0], HOST):
        time.sleep(0.1)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    wrap = (lambda stream: context.wrap_socket(stream, server_hostname=HOST)) if over_tls else lambda stream: stream
    before, streams = memory(pid), []
    for _ in range(count):
        stream = wrap(socket.create_connection(("127.0.0.1", port)))
        ask(stream)
        streams.append(stream)
    time.sleep(1)
    each = (memory(pid) - before) * 1024 / count
    for stream in streams[:: max(1, count // 200)]:
        ask(stream)
    for stream in streams:
        stream.close()
    return each


def findings(port):
    """What testssl calls worse than low."""
    report = FOLDER / "testssl.json"
    subprocess.run(["testssl", "--warnings", "batch", "--quiet", "--color", "0", "--jsonfile", report, "-p", "-s", "-f", "-U", "-S", "-P",
                    f"{HOST}:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    found = json.loads(report.read_text())
    assert len(found) > 50, "testssl did not look"
    bad = [one for one in found if one["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL") and not one["id"].startswith(OWN_AUTHORITY)]
    for one in bad:
        print(f"testssl: {one['severity']} {one['id']}: {one['finding']}")
    print(f"testssl: {len(found)} findings, {len(bad)} worse than low")
    return not bad


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    prepare()
    start("nginx", "-c", FOLDER / "nginx.conf")
    wait_for(INSTANCE)
    plain, tls = free_port(), free_port()
    router(plain, tls, 1)
    for port in (plain, tls):
        wait_for(port)
    while not answers(plain, HOST):
        time.sleep(0.1)
    good = True
    if h2spec := os.environ.get("H2SPEC"):
        result = subprocess.run([h2spec, "-h", HOST, "-p", str(tls), "-P", "/whole", "-t", "-k", "-S", "--timeout", "5"], capture_output=True, text=True).stdout
        failed = {line.strip() for line in result.splitlines() if line.strip().startswith("×")}
        print(f"h2spec: {result.strip().splitlines()[-1]}", *failed, sep="\n  ", flush=True)
        good &= " 0 failed" in result
    good &= attacks(plain)
    print(f"{RESTING} connections at rest: {resting(1, RESTING, False):.1f} KiB each; "
          f"{RESTING_TLS} over TLS: {resting(2, RESTING_TLS, True):.1f} KiB each", flush=True)
    good &= findings(tls)
    if not good:
        sys.exit(1)


run(main)
