"""What the processes of a platform cost: `account.py PLATFORM_HOME PROGRAM` prints a line for each of app, shim, containerd, host, router and
controller: its name, its memory in KiB (proportional, so that shared pages count once) and its CPU time in ticks."""
import collections
import os
import sys

home, program = sys.argv[1:]
parents, words = {}, {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        stat = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        parents[pid] = stat[1]
        words[pid] = (open(f"/proc/{pid}/cmdline").read().split("\0"), int(stat[11]) + int(stat[12]))
    except OSError:
        pass


def kind(pid):
    line = words.get(pid, ([""], 0))[0]
    if "containerd-shim" in line[0] and any(word.startswith(home) or "/platform" in word for word in line):
        return "shim"
    if line[0].endswith("containerd") and any(word.startswith(home) or "/platform" in word for word in line):
        return "containerd"
    if line[0] == program and line[1:2] == ["role"]:
        return line[2]
    return None


def of(pid):
    own = kind(pid)
    if own:
        return own
    while pid in parents:
        pid = parents[pid]
        if kind(pid) == "shim":
            return "app"
    return None


memory, ticks = collections.Counter(), collections.Counter()
for pid in words:
    name = of(pid)
    if name:
        try:
            rollup = open(f"/proc/{pid}/smaps_rollup").read().splitlines()
        except OSError:
            continue
        memory[name] += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        ticks[name] += words[pid][1]
for name in memory:
    print(name, memory[name], ticks[name])
