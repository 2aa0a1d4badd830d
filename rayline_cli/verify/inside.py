"""Look at a service where Ray runs. `rayline verify` sends this file to `python -` in each Ray pod, and calls it on this machine.

One job in, data out that can be written as JSON. Standard library only, and nothing of the kit: a pod has neither.
Secrets stay where they are: keys and tokens are read and used here, a variable with a secret comes back as a digest.
"""

import csv
import glob
import hashlib
import hmac
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

# Defaults for a Ray pod; this machine has others.
PLACE = {
    "pids": None,  # the processes that count; None: all
    "logs": "/tmp/ray/session_latest/logs",
    "dashboard": "http://127.0.0.1:8265",
    "serve": "http://127.0.0.1:8000",
    "metrics": "http://127.0.0.1:8080",  # Ray's own
    "token": None,  # Ray's own; None: KubeRay's variable
    "key": None,  # of the endpoint; None: the mounted file
    "key_file": "/etc/rayline/api-keys/api_key",
    "prefix": "",  # before each path of the endpoint
    "patience": 1.0,  # times as long as usual an answer may take: a busy machine is slow
}
_OF_AN_APPLICATION = ("key_file", "prefix")
_LONGEST_TEXT = 2_000_000
_LOG_BYTES = 4_000_000  # an engine logs its executor at its start


def run(job, place=None):
    """Run one job: {"do": look | settings | ask | stream | connect, ...}. `place` is laid over PLACE."""
    arguments = {name: value for name, value in job.items() if name not in ("do", "application", *_OF_AN_APPLICATION)}
    of_an_application = {name: job[name] for name in _OF_AN_APPLICATION if name in job}
    return _JOBS[job["do"]]({**PLACE, **(place or {}), **of_an_application}, **arguments)


# --- processes and their files ---------------------------------------------------------------------------------------


def look(place, names=(), secret_names=(), salt=""):
    """Return processes with the named variables, HAProxies, listeners and facts from logs.

    Of a variable in `secret_names` only a digest with `salt` comes back.
    """
    processes = []
    for pid in _pids(place):
        if title := _title(pid):
            env = _environ(pid)
            kept = {name: env[name] for name in names if name in env}
            kept.update({name: _digest(salt, env[name]) for name in secret_names if name in env})
            processes.append({"pid": pid, "title": title, "environ": kept})
    return {
        "processes": processes,
        "haproxy": _haproxies(place),
        "listeners": _listeners(place),
        "executors": _executors(place),
        "throughput_said": _controller_says(place, processes, "Throughput optimized Ray Serve enabled"),
    }


def _read(path, size=-1, errors="replace"):
    """Return the text of a file; nothing where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(size).decode(errors=errors)
    except OSError:
        return ""


def _pids(place):
    if place["pids"] is not None:
        return list(place["pids"])
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def _argv(pid):
    text = _read(f"/proc/{pid}/cmdline").rstrip("\0 ")
    return text.split("\0") if text else []


def _title(pid):
    """Return the program, or the title that a process gave itself. Not the arguments: Ray's own are passed passwords."""
    words = "".join(_argv(pid)[:1]).split()
    return words[0] if words else ""


def _environ(pid):
    # Ray's processes write their title over the first of it
    block = _read(f"/proc/{pid}/environ", errors="surrogateescape")
    return dict(entry.split("=", 1) for entry in block.split("\0") if "=" in entry)


def _digest(salt, value):
    return hmac.new(salt.encode(), value.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()[:12]


def _haproxies(place):
    """Return one entry for each configuration that a haproxy process runs with; during a reload two processes share one."""
    haproxies = {}
    for pid in _pids(place):
        argv = _argv(pid)
        if not argv or os.path.basename(argv[0]) != "haproxy" or "-f" not in argv[:-1]:
            continue
        path = argv[argv.index("-f") + 1]
        haproxy = haproxies.setdefault(path, {"path": path, "pids": [], "config": "", "lua": "", "stat": [], "error": ""})
        haproxy["pids"].append(pid)
    for path, haproxy in haproxies.items():
        try:
            with open(path) as file:
                haproxy["config"] = file.read()
            lua = re.search(r"lua-load-per-thread (\S+)", haproxy["config"])
            if lua:
                with open(lua.group(1)) as file:
                    haproxy["lua"] = file.read()
            admin = re.search(r"^\s*stats socket (\S+)", haproxy["config"], re.M)
            if not admin:
                raise ValueError("the configuration names no stats socket")
            haproxy["stat"] = haproxy_counters(admin.group(1), place["patience"])
        except (OSError, ValueError) as error:
            haproxy["error"] = f"{type(error).__name__}: {error}"
    return list(haproxies.values())


def haproxy_says(path, command, patience=1.0):
    """Return the answer to one command on an admin socket. Raises OSError where no process listens."""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.settimeout(5 * patience)
        admin.connect(str(path))
        admin.sendall((command + "\n").encode())
        with admin.makefile("rb") as answer:
            return answer.read().decode(errors="replace")


# Backend, server, its address and health; bytes from it, requests to it.
_STAT = ("pxname", "svname", "addr", "status", "check_status", "bout", "req_tot")


def haproxy_counters(path, patience=1.0):
    """Return HAProxy's counters: a row for each frontend, backend and server. Raises OSError where no process listens."""
    rows = csv.DictReader(io.StringIO(haproxy_says(path, "show stat", patience).lstrip("# ")))
    return [{name: row.get(name) or "" for name in _STAT} for row in rows]


def _listeners(place):
    """Return TCP sockets that listen: address, port, and the process that owns the socket."""
    owners = {}
    for pid in _pids(place):
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    owners.setdefault(target[8:-1], pid)
        except OSError:
            continue
    listeners = []
    for table, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for line in _read(table).splitlines()[1:]:
            fields = line.split()
            pid = owners.get(fields[9])
            # 0A: LISTEN. A socket without an owner is another program's on this machine.
            if fields[3] != "0A" or (pid is None and place["pids"] is not None):
                continue
            address, port = fields[1].split(":")
            raw = bytes.fromhex(address)
            words = [raw[start : start + 4][::-1] for start in range(0, len(raw), 4)]
            address = socket.inet_ntop(family, b"".join(words))
            listeners.append({"address": address, "port": int(port, 16), "pid": pid, "title": _title(pid) if pid else ""})
    return listeners


def _executors(place):
    """Return for each log file of a replica the class of its engine's executor, where the log has it."""
    executors = {}
    for path in glob.glob(os.path.join(place["logs"], "serve", "replica_*.log")):
        if said := re.findall(r"Using executor class: <class '([\w.]+)'>", _read(path, _LOG_BYTES)):
            executors[os.path.basename(path)] = said[-1]
    return executors


def _controller_says(place, processes, text):
    controllers = [process["pid"] for process in processes if process["title"].startswith("ray::ServeController")]
    patterns = ["serve/controller_*.log", *(f"worker-*-{pid}.err" for pid in controllers)]
    return any(
        text in _read(path, _LOG_BYTES) for pattern in patterns for path in glob.glob(os.path.join(place["logs"], pattern))
    )


def settings(place, names):
    """Return Serve's own reading of each Serve process's environment: [{"pids", "titles", "values", "ray"}].

    Serve reads these variables when a process starts and shows them nowhere. So its module is loaded again with the same
    variables, once for each environment that differs.
    """
    groups = {}
    for pid in _pids(place):
        title = _title(pid)
        if title.startswith(("ray::ServeController", "ray::ServeReplica")):
            env = _environ(pid)
            key = json.dumps({name: env[name] for name in sorted(env) if name.startswith("RAY_SERVE_")})
            group = groups.setdefault(key, {"pids": [], "titles": [], "env": env})
            group["pids"].append(pid)
            group["titles"].append(title)
    code = (
        "import json, ray\nfrom ray.serve._private import constants as c\n"
        f"print(json.dumps({{'ray': ray.__version__, 'values': {{n: getattr(c, n, None) for n in {list(names)!r}}}}}))"
    )
    answers = []
    for group in groups.values():
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=group.pop("env"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120 * place["patience"],
        )
        if done.returncode != 0:
            raise RuntimeError("Serve's constants cannot be read: " + done.stderr.strip()[-500:])
        answers.append({**group, **json.loads(done.stdout.splitlines()[-1])})
    return answers


# --- requests --------------------------------------------------------------------------------------------------------


class _AnyAnswer(urllib.request.HTTPErrorProcessor):
    """Return every answer as it is: an error raises nothing, a redirect is not followed."""

    def http_response(self, request, response):
        return response

    https_response = http_response


# no proxy of the environment stands between a machine and itself
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _AnyAnswer)


def ask(place, base, requests):
    """Return answers to requests {"method", "path", "body", "auth"}: [{"status", "text", "server"}]; status 0 is no answer.

    `base` is "dashboard", "serve" (this node's own proxy) or an address. With `auth` the token or the key is sent.
    """
    return [_ask(place, base, **request) for request in requests]


def _ask(place, base, path, method="GET", body=None, auth=True):
    try:
        with _open(place, base, path, method, body, auth) as answer:
            text = answer.read(_LONGEST_TEXT).decode(errors="replace")
            return {"status": answer.status, "text": text, "server": answer.headers.get("server", "")}
    except (OSError, ValueError) as error:
        return {"status": 0, "text": f"{type(error).__name__}: {error}", "server": ""}


def _open(place, base, path, method, body, auth, seconds=60, more_headers=None):
    headers = {"Content-Type": "application/json"} if body is not None else {}
    headers |= more_headers or {}
    secret = (_token(place) if base == "dashboard" else _key(place)) if auth else None
    if secret:
        headers["Authorization"] = f"Bearer {secret}"
    data = None if body is None else json.dumps(body).encode()
    own = ("dashboard", "metrics")
    url = place[base] if base in (*own, "serve") else base
    path = path if base in own else place["prefix"] + path
    request = urllib.request.Request(url + path, data=data, headers=headers, method=method)
    return _OPENER.open(request, timeout=seconds * place["patience"])


def _token(place):
    return place["token"] or os.environ.get("RAY_AUTH_TOKEN")


def _key(place):
    return _read(place["key_file"]).strip() if place["key"] is None else place["key"]


def stream(place, base, path, body, counters=False, headers=None):
    """Run one request, which may stream. With `counters` also return HAProxy's rows from before and after it.

    {"status", "events", "done", "bytes", "text", "whole", "seconds", "before", "after"}: number of server-sent events with
    choices, whether the last was [DONE], bytes of the body; `text` is the error if there is one, `whole` an answer that is no stream.
    """
    said = {"status": 0, "events": 0, "done": False, "bytes": 0, "text": "", "whole": "", "before": [], "after": []}
    started = time.monotonic()
    if counters:
        said["before"] = _haproxies(place)
    try:
        with _open(place, base, path, "POST", body, True, seconds=180, more_headers=headers) as answer:
            said["status"] = answer.status
            if answer.status != 200:
                said["text"] = answer.read(500).decode(errors="replace")
            elif not body.get("stream"):
                whole = answer.read(_LONGEST_TEXT)
                said |= {"bytes": len(whole), "whole": whole.decode(errors="replace")}
            for line in answer if answer.status == 200 else ():
                said["bytes"] += len(line)
                text = line.decode(errors="replace").strip()
                if text == "data: [DONE]":
                    said["done"] = True
                elif text.startswith("data:") and '"choices"' in text:
                    said["events"] += 1
                elif text.startswith("data:") and '"error"' in text:
                    said["text"] = text[:500]
    except (OSError, ValueError) as error:
        said["text"] = f"{type(error).__name__}: {error}"
    if counters:
        # the process thread adds the last bytes to its counters when it is done with the stream
        time.sleep(0.1 * place["patience"])
        said["after"] = _haproxies(place)
    for haproxy in (*said["before"], *said["after"]):
        del haproxy["config"], haproxy["lua"]
    return {**said, "seconds": round(time.monotonic() - started, 3)}


def metric(place, name):
    """Return the sum of a metric's samples on this node."""
    with _open(place, "metrics", "/metrics", "GET", None, False) as answer:
        return sum(float(line.rpartition(b" ")[2]) for line in answer if line.startswith(name.encode() + b"{"))


def connect(place, addresses, timeout=3):
    """Return for each address [host, port] whether it takes a connection."""

    def opens(address):
        try:
            with socket.create_connection(tuple(address), timeout=timeout):
                return True
        except OSError:
            return False

    with ThreadPoolExecutor(max(1, len(addresses))) as pool:
        return list(pool.map(opens, addresses))


_JOBS = {"look": look, "settings": settings, "ask": ask, "stream": stream, "metric": metric, "connect": connect}
