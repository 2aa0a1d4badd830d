"""What is looked at where Ray runs. `rayline verify` sends this file to `python -` in each Ray pod, and calls it on this machine.

One job in, data out that can be written as JSON. The standard library only, and no word of the kit: a pod has neither.
Secrets stay where they are: keys and tokens are read here and used here, a variable with a secret comes back as a digest.
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
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

# Where things are in a Ray pod. This machine says otherwise.
PLACE = {
    "pids": None,  # the processes that count; None: all
    "logs": "/tmp/ray/session_latest/logs",
    "dashboard": "http://127.0.0.1:8265",
    "serve": "http://127.0.0.1:8000",
    "token": None,  # Ray's own; None: KubeRay's variable
    "key": None,  # of the endpoint; None: the mounted file
    "key_file": "/etc/rayline/api-keys/api_key",
    "patience": 1.0,  # times as long as usual an answer may take: a machine that does something else is slow
}
_LONGEST_TEXT = 2_000_000
_LOG_BYTES = 4_000_000  # an engine says at its start what it is


def run(job, place=None):
    """Does one job: {"do": look | settings | ask | stream | connect, ...}. `place` is laid over PLACE."""
    arguments = {name: value for name, value in job.items() if name != "do"}
    return _JOBS[job["do"]]({**PLACE, **(place or {})}, **arguments)


# --- what runs here --------------------------------------------------------------------------------------------------


def look(place, names=(), secret_names=(), salt=""):
    """Processes with the named variables, HAProxies, listeners and what logs say.

    Of a variable in `secret_names` only a digest with `salt` comes back.
    """
    processes = []
    for pid in _pids(place):
        argv = _argv(pid)
        if not argv:
            continue
        env = _environ(pid)
        kept = {name: env[name] for name in names if name in env}
        kept.update({name: _digest(salt, env[name]) for name in secret_names if name in env})
        processes.append({"pid": pid, "title": _title(argv), "environ": kept})
    return {
        "processes": processes,
        "haproxy": _haproxies(place),
        "listeners": _listeners(place),
        "executors": _executors(place),
        "throughput_said": _controller_says(place, processes, "Throughput optimized Ray Serve enabled"),
    }


def _pids(place):
    if place["pids"] is not None:
        return list(place["pids"])
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def _argv(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            text = file.read().decode(errors="replace").rstrip("\0 ")
    except OSError:
        return []
    return text.split("\0") if text else []


def _title(argv):
    """The program, or the title that the process gave itself. Not the arguments: Ray's own are passed passwords."""
    return argv[0].split()[0] if argv and argv[0].strip() else ""


def _environ(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            block = file.read().decode(errors="surrogateescape")
    except OSError:
        return {}
    # Ray's processes write their title over the first of it
    return dict(entry.split("=", 1) for entry in block.split("\0") if "=" in entry)


def _digest(salt, value):
    return hmac.new(salt.encode(), value.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()[:12]


def _haproxies(place):
    """One for each configuration that a haproxy process runs with; a reload has two processes for a while."""
    found = {}
    for pid in _pids(place):
        argv = _argv(pid)
        if not argv or os.path.basename(argv[0]) != "haproxy" or "-f" not in argv[:-1]:
            continue
        path = argv[argv.index("-f") + 1]
        one = found.setdefault(path, {"path": path, "pids": [], "config": "", "lua": "", "stat": [], "error": ""})
        one["pids"].append(pid)
    for path, one in found.items():
        try:
            with open(path) as file:
                one["config"] = file.read()
            lua = re.search(r"lua-load-per-thread (\S+)", one["config"])
            if lua:
                with open(lua.group(1)) as file:
                    one["lua"] = file.read()
            one["stat"] = haproxy_counters(_admin_socket(one["config"]), place["patience"])
        except (OSError, ValueError) as error:
            one["error"] = f"{type(error).__name__}: {error}"
    return list(found.values())


def _admin_socket(config):
    line = re.search(r"^\s*stats socket (\S+)", config, re.M)
    if not line:
        raise ValueError("the configuration names no stats socket")
    return line.group(1)


def haproxy_says(path, command, patience=1.0):
    """The answer to one command on an admin socket. Raises OSError where nobody listens."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(5 * patience)
        one.connect(str(path))
        one.sendall((command + "\n").encode())
        parts = []
        while part := one.recv(65536):
            parts.append(part)
    return b"".join(parts).decode(errors="replace")


def haproxy_counters(path, patience=1.0):
    """HAProxy's counters: one row for each frontend, backend and server. Raises OSError where nobody listens."""
    rows = csv.DictReader(io.StringIO(haproxy_says(path, "show stat", patience).lstrip("# ")))
    return [{name: row.get(name) or "" for name in _STAT} for row in rows]


# Backend, server, its address and health; bytes from it, requests to it.
_STAT = ("pxname", "svname", "addr", "status", "check_status", "bout", "req_tot")


def _listeners(place):
    """TCP sockets that listen: address, port, and the process they belong to."""
    owners = {}
    for pid in _pids(place):
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    owners.setdefault(target[8:-1], pid)
        except OSError:
            continue
    found = []
    for table, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        try:
            with open(table) as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] != "0A":
                continue
            pid = owners.get(fields[9])
            if pid is None and place["pids"] is not None:
                continue  # somebody else's on this machine
            address, port = fields[1].split(":")
            raw = bytes.fromhex(address)
            words = [raw[start : start + 4][::-1] for start in range(0, len(raw), 4)]
            found.append(
                {
                    "address": socket.inet_ntop(family, b"".join(words)),
                    "port": int(port, 16),
                    "pid": pid,
                    "title": _title(_argv(pid)) if pid else "",
                }
            )
    return found


def _executors(place):
    """Log file of a replica -> the class of its engine's executor, where the log says so."""
    found = {}
    for path in glob.glob(os.path.join(place["logs"], "serve", "replica_*.log")):
        try:
            with open(path, errors="replace") as file:
                said = re.findall(r"Using executor class: <class '([\w.]+)'>", file.read(_LOG_BYTES))
        except OSError:
            continue
        if said:
            found[os.path.basename(path)] = said[-1]
    return found


def _controller_says(place, processes, text):
    patterns = [os.path.join(place["logs"], "serve", "controller_*.log")]
    for process in processes:
        if process["title"].startswith("ray::ServeController"):
            patterns.append(os.path.join(place["logs"], f"worker-*-{process['pid']}.err"))
    for path in (path for pattern in patterns for path in glob.glob(pattern)):
        try:
            with open(path, errors="replace") as file:
                if text in file.read(_LOG_BYTES):
                    return True
        except OSError:
            continue
    return False


def settings(place, names):
    """What Serve's own module makes of each Serve process's environment: [{"pids", "titles", "values", "ray"}].

    Serve reads these when a process starts and shows them nowhere, so its module is asked again with the same variables,
    once for each environment that differs.
    """
    groups = {}
    for pid in _pids(place):
        title = _title(_argv(pid))
        if not title.startswith(("ray::ServeController", "ray::ServeReplica")):
            continue
        env = _environ(pid)
        key = json.dumps({name: env[name] for name in sorted(env) if name.startswith("RAY_SERVE_")})
        one = groups.setdefault(key, {"pids": [], "titles": [], "env": env})
        one["pids"].append(pid)
        one["titles"].append(title)
    code = (
        "import json, ray\nfrom ray.serve._private import constants as c\n"
        f"print(json.dumps({{'ray': ray.__version__, 'values': {{n: getattr(c, n, None) for n in {list(names)!r}}}}}))"
    )
    found = []
    for one in groups.values():
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=one.pop("env"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120 * place["patience"],
        )
        if done.returncode != 0:
            raise RuntimeError("Serve's constants cannot be read: " + done.stderr.strip()[-500:])
        found.append({**one, **json.loads(done.stdout.splitlines()[-1])})
    return found


# --- requests --------------------------------------------------------------------------------------------------------


def ask(place, base, requests):
    """Answers to requests {"method", "path", "body", "auth"}: [{"status", "text", "headers"}]; status 0 is no answer.

    `base` is "dashboard", "serve" (this node's own proxy) or an address. With `auth` the token or the key is sent.
    """
    return [_ask(place, base, **request) for request in requests]


def _ask(place, base, path, method="GET", body=None, auth=True):
    try:
        with _open(place, base, path, method, body, auth) as answer:
            text = answer.read(_LONGEST_TEXT).decode(errors="replace")
            return {"status": answer.status, "text": text, "server": answer.headers.get("server", "")}
    except urllib.error.HTTPError as error:
        text = error.read(_LONGEST_TEXT).decode(errors="replace")
        return {"status": error.code, "text": text, "server": error.headers.get("server", "")}
    except (OSError, ValueError) as error:
        return {"status": 0, "text": f"{type(error).__name__}: {error}", "server": ""}


# no proxy of the environment stands between a machine and itself; and a redirect is an answer, not a way
class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


def _open(place, base, path, method, body, auth, seconds=60):
    headers = {"Content-Type": "application/json"} if body is not None else {}
    secret = (_token(place) if base == "dashboard" else _key(place)) if auth else None
    if secret:
        headers["Authorization"] = f"Bearer {secret}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(_url(place, base) + path, data=data, headers=headers, method=method)
    return _OPENER.open(request, timeout=seconds * place["patience"])


def _url(place, base):
    return place[base] if base in ("dashboard", "serve") else base


def _token(place):
    return place["token"] or os.environ.get("RAY_AUTH_TOKEN")


def _key(place):
    if place["key"] is not None:
        return place["key"]
    try:
        with open(place["key_file"]) as file:
            return file.read().strip()
    except OSError:
        return None


def stream(place, base, path, body, counters=False):
    """One streamed completion. With `counters` also HAProxy's rows from before and after it.

    {"status", "events", "done", "bytes", "text", "seconds", "before", "after"}: how many server-sent events with choices,
    whether the last was [DONE], bytes of the body; `text` is the error if there is one.
    """
    said = {"status": 0, "events": 0, "done": False, "bytes": 0, "text": "", "before": [], "after": []}
    started = time.monotonic()
    if counters:
        said["before"] = _haproxies(place)
    try:
        with _open(place, base, path, "POST", {**body, "stream": True}, True, seconds=180) as answer:
            said["status"] = answer.status
            for line in answer:
                said["bytes"] += len(line)
                text = line.decode(errors="replace").strip()
                if text == "data: [DONE]":
                    said["done"] = True
                elif text.startswith("data:") and '"choices"' in text:
                    said["events"] += 1
                elif text.startswith("data:") and '"error"' in text:
                    said["text"] = text[:500]
    except urllib.error.HTTPError as error:
        said.update(status=error.code, text=error.read(500).decode(errors="replace"))
    except (OSError, ValueError) as error:
        said["text"] = f"{type(error).__name__}: {error}"
    if counters:
        # the process thread adds the last bytes to its counters when it is done with the stream
        time.sleep(0.1 * place["patience"])
        said["after"] = _haproxies(place)
    for one in (*said["before"], *said["after"]):
        del one["config"], one["lua"]
    return {**said, "seconds": round(time.monotonic() - started, 3)}


def connect(place, addresses, timeout=3):
    """Which of the addresses [host, port] take a connection: [bool]."""

    def opens(address):
        try:
            with socket.create_connection(tuple(address), timeout=timeout):
                return True
        except OSError:
            return False

    with ThreadPoolExecutor(max(1, len(addresses))) as pool:
        return list(pool.map(opens, addresses))


_JOBS = {"look": look, "settings": settings, "ask": ask, "stream": stream, "connect": connect}
