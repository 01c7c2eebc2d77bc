#!/usr/bin/env python3
"""Measures a router against haproxy: `measure.py ROUTER FOLDER`.

Each case runs for a second with one and then with the other, round by round; what counts is the CPU time that a request costs the proxy, user and
system, as a ratio within one round, and the median of these. The proxy has one core, load and instance have another one.
"""
import os, pathlib, re, select, signal, socket, statistics, subprocess, sys, time

ROUTER, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
ROUNDS = int(os.environ.get("ROUNDS", "7"))
PROXY_CORE, LOAD_CORE = os.environ.get("PROXY_CORE", "0"), os.environ.get("LOAD_CORE", "1")
HOST = "bench.test"
INSTANCE = 18000


def wrk(connections, path="/1k", script=None):
    return lambda plain, _: requests(
        ["wrk", "-t2", f"-c{connections}", "-d1s", "--timeout", "10s", "-H", f"Host: {HOST}"]
        + (["-s", FOLDER / script] if script else []) + [f"http://127.0.0.1:{plain}{path}"], r"(\d+) requests in", 1)


def h2load(clients, count, repeat, *options):
    return lambda _, tls: requests(
        ["h2load", "-t1", f"-c{clients}", f"-n{count}", f"--connect-to=127.0.0.1:{tls}", *options, f"https://{HOST}:{tls}/1k"],
        r"(\d+) succeeded", repeat)


CASES = {
    "1 KiB, 64 connections": wrk(64),
    "1 KiB, 512 connections": wrk(512),
    "100 KiB": wrk(64, "/100k"),
    "16 KiB posts": wrk(64, "/post", "post.lua"),
    "new connection each": wrk(64, "/1k", "close.lua"),
    "TLS, keep-alive": h2load(64, 30000, 1, "--h1"),
    "TLS, new connection each": h2load(150, 150, 8, "--h1"),
    "HTTP/2 over TLS": h2load(16, 30000, 1, "-m10"),
}


def requests(command, pattern, repeat):
    """Runs the load, and says how many requests were answered well."""
    done = 0
    for _ in range(repeat):
        out = subprocess.run(["taskset", "-c", LOAD_CORE, *command], capture_output=True, text=True, timeout=60).stdout
        failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        if failed:
            sys.exit(f"{failed[0]}: {command}")
        found = re.search(pattern, out)
        done += int(found[1]) if found else 0
    return done


def cpu(pid):
    """Seconds of CPU time of a process and its children, as precisely as the scheduler knows them."""
    total = 0.0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0]) / 1e9
        total += sum(cpu(int(child)) for child in (task / "children").read_text().split())
    return total


def memory(pid, which="VmRSS"):
    return int(re.search(rf"{which}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


running = []


def start(*command, core=None):
    pinned = ["taskset", "-c", core, *command] if core else command
    log = open(FOLDER / "log", "ab")
    running.append(subprocess.Popen(pinned, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    return running[-1]


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    running.remove(process)


def wait_for(port):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            return socket.create_connection(("127.0.0.1", port), 0.5).close()
        except OSError:
            time.sleep(0.001)
    sys.exit(f"nobody listens on port {port}: {(FOLDER / 'log').read_text()[-2000:]}")


def answers(port, host):
    """Whether a host is routed already."""
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(f"GET /1k HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return stream.recv(64).startswith(b"HTTP/1.1 200")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def prepare():
    (FOLDER / "100k").write_text("y" * 102400)
    (FOLDER / "close.lua").write_text('wrk.headers["Connection"] = "close"\n')
    (FOLDER / "post.lua").write_text('wrk.method = "POST"\nwrk.body = string.rep("z", 16384)\n')
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj",
                    f"/CN={HOST}", "-keyout", FOLDER / "key.pem", "-out", FOLDER / "certificate.pem"], stderr=subprocess.DEVNULL, check=True)
    (FOLDER / "both.pem").write_text((FOLDER / "certificate.pem").read_text() + (FOLDER / "key.pem").read_text())
    (FOLDER / "nginx.conf").write_text(f"""daemon off; pid {FOLDER}/nginx.pid; error_log {FOLDER}/log crit; events {{ worker_connections 9000; }}
http {{ access_log off; keepalive_requests 1000000000; sendfile on; tcp_nopush on; client_body_buffer_size 128k; client_max_body_size 0;
 client_body_temp_path {FOLDER}/bodies; server {{ listen 127.0.0.1:{INSTANCE} backlog=4096; root {FOLDER}; open_file_cache max=10;
 location / {{ return 200 "{'x' * 1023}\\n"; }} location = /100k {{ }}
 location = /whole {{ proxy_pass http://127.0.0.1:{INSTANCE}/1k; }} }} }}
""")


def haproxy(plain, tls, hosts=1, instance=INSTANCE):
    (FOLDER / "haproxy.cfg").write_text(f"""global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
frontend all
  bind 127.0.0.1:{plain} backlog 4096
  bind 127.0.0.1:{tls} ssl crt {FOLDER}/both.pem alpn h2,http/1.1 backlog 4096
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
  http-request set-header X-Request-Id %[uuid()]
  http-request set-header X-Request-Start %[date(0,ms)]
  {"default_backend b0" if hosts == 1 else f"use_backend %[req.hdr(host),lower,map({FOLDER}/hosts.map,b0)]"}
""" + "".join(f"""backend b{number}
  http-reuse always
  server one 127.0.0.1:{instance} pool-max-conn 2048
""" for number in range(hosts)))
    (FOLDER / "hosts.map").write_text("".join(f"h{number}.{HOST} b{number}\n" for number in range(1, hosts)))
    return start("haproxy", "-f", FOLDER / "haproxy.cfg", core=PROXY_CORE)


def router(plain, tls, hosts, folder="router", *options, instance=INSTANCE):
    place = FOLDER / folder
    place.mkdir()
    publisher = start(ROUTER, "publish", "--folder", place, "--hosts", str(hosts), "--host", HOST, "--upstream", f"127.0.0.1:{instance}",
                      *options)
    while not (place / "addresses.sock").exists():
        time.sleep(0.01)
    serving = start(ROUTER, "serve", "--folder", place, "--listen", f"127.0.0.1:{plain}", "--tls-listen", f"127.0.0.1:{tls}",
                    "--certificate", FOLDER / "both.pem", core=PROXY_CORE)
    return publisher, serving


def is_wanted(name):
    wanted = os.environ.get("CASES")
    return not wanted or any(part.strip() and part.strip() in name for part in wanted.split("|"))


def compare(proxies, cases=CASES):
    print(f"{'case':26} {'haproxy':>9} {'router':>9} {'ratio':>6}   (µs of CPU a request, medians of {ROUNDS} rounds)", flush=True)
    for name, load in cases.items():
        if not is_wanted(name):
            continue
        costs = {proxy: [] for proxy in proxies}
        for number in range(ROUNDS + 1):
            for proxy in list(proxies)[:: -1 if number % 2 else 1]:
                pid, plain, tls = proxies[proxy]
                before = cpu(pid)
                done = load(plain, tls)
                if number and done:
                    costs[proxy].append((cpu(pid) - before) / done * 1e6)
        ours, theirs = costs["router"], costs["haproxy"]
        ratio = statistics.median(a / b for a, b in zip(ours, theirs))
        print(f"{name:26} {statistics.median(theirs):9.1f} {statistics.median(ours):9.1f} {ratio:6.2f}", flush=True)


def syscalls(pid, port):
    """System calls of the router's worker for each request, which strace counts."""
    report = FOLDER / "strace"
    tracer = start("strace", "-f", "-c", "-o", report, "-p", str(pid))
    time.sleep(0.5)
    done = requests(["wrk", "-t1", "-c16", "-d2s", "-H", f"Host: {HOST}", f"http://127.0.0.1:{port}/1k"], r"(\d+) requests in", 1)
    tracer.send_signal(signal.SIGINT)
    tracer.wait(10)
    running.remove(tracer)
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", report.read_text(), re.MULTILINE)
    calls = {name: int(count) / done for count, name in rows if name != "total" and int(count) / done >= 0.01}
    print("system calls a request: " + ", ".join(f"{name} {count:.2f}" for name, count in calls.items()))


def tables(instance):
    """How much a table takes, and how soon a router that starts answers by the one on its disk, without any publisher."""
    for hosts in (10_000, 1_000_000):
        plain = free_port()
        empty = router(free_port(), free_port(), 1, f"empty-{hosts}")
        time.sleep(1)
        base = memory(empty[1].pid)
        both = router(plain, free_port(), hosts, f"hosts-{hosts}", "--proof", str(instance))
        wait_for(plain)
        last = f"h{hosts - 1}.{HOST}"
        while not answers(plain, last):
            time.sleep(0.1)
        kept = FOLDER / f"hosts-{hosts}" / "table.json"
        # Both halves of the last one: each comes for itself, and is written as far as it is there.
        rows = [f'"{last}"', f'{hosts - 1:012}.v1.web",{{"healthy"']
        while not kept.exists() or any(subprocess.run(["grep", "-qF", row, kept]).returncode for row in rows):
            time.sleep(1)
        time.sleep(3)
        first, most = memory(both[1].pid), memory(both[1].pid, "VmHWM")
        print(f"{hosts} hosts: {first:.0f} MiB, {first - base:.0f} of them the table; {most:.0f} at most while it came", flush=True)
        stop(both[1])
        stop(both[0])
        took = []
        for _ in range(ROUNDS):
            began = time.monotonic()
            again = start(ROUTER, "serve", "--folder", FOLDER / f"hosts-{hosts}", "--listen", f"127.0.0.1:{plain}")
            wait_for(plain)
            ready = time.monotonic()
            if not answers(plain, last):
                sys.exit("the table on disk is not served")
            took.append((ready - began, time.monotonic() - began))
            resting, peak = memory(again.pid), memory(again.pid, "VmHWM")
            stop(again)
        ready, answered = (statistics.median(times) * 1000 for times in zip(*took))
        print(f"{hosts} hosts on disk: takes requests {ready:.0f} ms after its start, has answered one after {answered:.0f} ms; "
              f"{resting:.0f} MiB, {peak:.0f} at most", flush=True)
        for process in empty:
            stop(process)


def many_hosts():
    """What a request costs if it is to any of 10,000 hosts, each with an instance of its own."""
    (FOLDER / "any.lua").write_text(f"""local seeds = 0
setup = function(thread) seeds = seeds + 1; thread:set("seed", os.time() * 10 + seeds) end
init = function() math.randomseed(seed) end
request = function()
  return wrk.format("GET", "/1k", {{ Host = "h" .. math.random(1, 9999) .. ".{HOST}" }})
end
""")
    ports = {name: (free_port(), free_port()) for name in ("haproxy", "router")}
    began = time.monotonic()
    theirs = haproxy(*ports["haproxy"], 10_000)
    wait_for(ports["haproxy"][0])
    print(f"10000 hosts: haproxy takes requests {(time.monotonic() - began) * 1000:.0f} ms after its start", flush=True)
    publisher, ours = router(*ports["router"], 10_000, "many")
    wait_for(ports["router"][0])
    while not answers(ports["router"][0], f"h9999.{HOST}"):
        time.sleep(0.1)
    before = memory(ours.pid)
    compare({"haproxy": (theirs.pid, *ports["haproxy"]), "router": (ours.pid, *ports["router"])}, {"10,000 hosts": wrk(64, "/", "any.lua")})
    print(f"memory after that: haproxy {memory(theirs.pid):.0f} MiB, router {memory(ours.pid):.0f} MiB ({before:.0f} before)", flush=True)
    for process in (theirs, ours, publisher):
        stop(process)


def web_socket(port):
    stream = socket.create_connection(("127.0.0.1", port))
    stream.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                   "Sec-WebSocket-Version: 13\r\n\r\n".encode())
    return stream, stream.recv(4096).startswith(b"HTTP/1.1 101")


def talk(plain, _):
    """Has 64 WebSockets say 125 bytes again and again, each when it has heard the last ones, for a second."""
    frame, waiting, sockets, done = bytes([0x82, 125]) + b"z" * 125, select.epoll(), {}, 0
    for _ in range(64):
        stream, _ = web_socket(plain)
        sockets[stream.fileno()] = stream
        waiting.register(stream, select.EPOLLIN)
        stream.sendall(frame)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        for number, _ in waiting.poll():
            if len(sockets[number].recv(4096)) != len(frame):
                sys.exit("a frame came back in pieces")
            sockets[number].send(frame)
            done += 1
    for stream in sockets.values():
        stream.close()
    return done


def echo():
    """An app whose WebSockets say what they are told."""
    listener, waiting, sockets = socket.create_server(("127.0.0.1", INSTANCE + 1), backlog=512), select.epoll(), {}
    waiting.register(listener, select.EPOLLIN)
    while True:
        for number, _ in waiting.poll():
            if number == listener.fileno():
                new, _ = listener.accept()
                new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets[new.fileno()] = new
                waiting.register(new, select.EPOLLIN)
                continue
            try:
                said = sockets[number].recv(65536)
                if said.startswith(b"GET "):
                    said = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
                sockets[number].sendall(said)
            except OSError:
                said = b""
            if not said:
                sockets.pop(number).close()


def web_sockets():
    """What a frame of a WebSocket costs that goes to an app and comes back."""
    app = start(sys.executable, __file__, "echo", FOLDER, core=LOAD_CORE)
    wait_for(INSTANCE + 1)
    ports = {name: (free_port(), free_port()) for name in ("haproxy", "router")}
    theirs = haproxy(*ports["haproxy"], instance=INSTANCE + 1)
    publisher, ours = router(*ports["router"], 1, "frames", instance=INSTANCE + 1)
    for plain, _ in ports.values():
        wait_for(plain)
        while not web_socket(plain)[1]:
            time.sleep(0.1)
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    compare({"haproxy": (theirs.pid, *ports["haproxy"]), "router": (ours.pid, *ports["router"])}, {"WebSocket, 125 bytes": talk})
    for process in (theirs, ours, publisher, app):
        stop(process)


def changes():
    """How long it takes from a change of the route table to the first request that is served by it."""
    for routers in (1, 10):
        place = FOLDER / f"change-{routers}"
        place.mkdir()
        out = subprocess.run([ROUTER, "change", "--folder", place, "--routers", str(routers), "--hosts", "10000", "--host", HOST,
                              "--upstream", f"127.0.0.1:{INSTANCE}"], capture_output=True, text=True, timeout=300, check=True).stdout
        half, most = (int(number) / 1000 for number in out.split())
        print(f"a new route among 10000, {routers} routers: served after {half:.2f} ms (median), {most:.2f} ms (99 of 100)", flush=True)


def one_host():
    ports = {name: (free_port(), free_port()) for name in ("haproxy", "router")}
    theirs, (publisher, ours) = haproxy(*ports["haproxy"]), router(*ports["router"], 1)
    for plain, tls in ports.values():
        wait_for(plain)
        wait_for(tls)
    while not answers(ports["router"][0], HOST):
        time.sleep(0.1)
    requests(["wrk", "-t1", "-c64", "-d1s", "-H", f"Host: {HOST}", f"http://127.0.0.1:{ports['router'][0]}/1k"], r"(\d+) requests in", 1)
    print(f"memory with 64 connections: haproxy {memory(theirs.pid):.1f} MiB, router {memory(ours.pid):.1f} MiB")
    compare({"haproxy": (theirs.pid, *ports["haproxy"]), "router": (ours.pid, *ports["router"])})
    print(f"memory after that: haproxy {memory(theirs.pid):.1f} MiB, router {memory(ours.pid):.1f} MiB")
    syscalls(ours.pid, ports["router"][0])
    for process in (theirs, ours, publisher):
        stop(process)


def main():
    prepare()
    instance = start("nginx", "-c", FOLDER / "nginx.conf", core=LOAD_CORE)
    wait_for(INSTANCE)
    if any(is_wanted(name) for name in CASES):
        one_host()
    if is_wanted("WebSocket, 125 bytes"):
        web_sockets()
    if is_wanted("tables"):
        tables(instance.pid)
    if is_wanted("10,000 hosts"):
        many_hosts()
    if is_wanted("changes"):
        changes()


def run(measure):
    """Ends what was started in any case."""
    try:
        measure()
    finally:
        for process in list(running):
            stop(process)


if __name__ == "__main__":
    echo() if ROUTER == "echo" else run(main)
