# SPDX-License-Identifier: Apache-2.0
"""Load test of `musiq serve`: many requests of many clients on the route and on the page's API, beside a slow client.

python -m benchmarks.serve

It starts the server itself, needs the extra `serve`, and prints what it measured as JSON.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from musiq_hf.common.extras import require

PICTURES = sorted((Path(__file__).parents[2] / "examples" / "pictures").glob("*.jpg"))
SLOW_HEAD = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
SLOW_HEAD += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
START_SECONDS, ALONE = 300, 20  # seconds until the server must listen; requests that are made one after the other


@contextmanager
def run_server(port: int) -> Iterator[tuple[int, float]]:
    """Run a server in a process of its own, and give the number of that and the seconds of its start."""
    command = [sys.executable, "-m", "musiq_hf", "serve", "--port", str(port)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while not is_up(port):
                if process.poll() is not None or time.perf_counter() - start > START_SECONDS:
                    raise ValueError(f"The server did not start on port {port}. What it printed says why.")
                time.sleep(0.05)
            yield process.pid, time.perf_counter() - start
        finally:
            process.terminate()


def is_up(port: int) -> bool:
    """Return whether the server answers."""
    httpx: Any = require("httpx", extra="serve")
    try:
        return bool(httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200)
    except httpx.TransportError:
        return False


def read_memory(process: int) -> float:
    """Return the resident memory of a process, in megabytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def post(port: int, number: int) -> float:
    """Score one picture by the route, and return the score."""
    httpx: Any = require("httpx", extra="serve")
    path = PICTURES[number % len(PICTURES)]
    files = {"files": (path.name, path.read_bytes())}
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/score", files=files, timeout=600).raise_for_status()
    return float(answer.json()["rows"][0]["score"])


def make_page_client(port: int) -> Callable[[int], float]:
    """Return a function that scores one picture by the page's API."""
    gradio_client: Any = require("gradio_client", extra="serve")
    client = gradio_client.Client(f"http://127.0.0.1:{port}", verbose=False)

    def ask(number: int) -> float:
        picture = gradio_client.handle_file(PICTURES[number % len(PICTURES)])
        return float(client.predict(picture, api_name="/score")["score"])

    return ask


def put_under_load(ask: Callable[[int], float], num_requests: int, num_clients: int) -> dict[str, float]:
    """Ask many times from many threads, and compare each answer with the one that a client alone gets."""
    alone = [ask(number) for number in range(len(PICTURES))]
    seconds, lost = [], 0

    def take(number: int) -> None:
        nonlocal lost
        start = time.perf_counter()
        try:
            lost += abs(ask(number) - alone[number % len(PICTURES)]) > 1e-3
        except Exception as error:
            print(f"request {number}: {error!r}", file=sys.stderr)
            lost += 1
        seconds.append(time.perf_counter() - start)

    begin = time.perf_counter()
    with ThreadPoolExecutor(num_clients) as pool:
        list(pool.map(take, range(num_requests)))
    whole = time.perf_counter() - begin
    return {
        "requests": num_requests,
        "lost": lost,
        "seconds": round(whole, 1),
        "median_seconds": round(statistics.median(seconds), 2),
        "largest_seconds": round(max(seconds), 2),
    }


def send_slowly(port: int, ended: threading.Event) -> None:
    """Send a byte a second, until told to end."""
    with closing(socket.create_connection(("127.0.0.1", port))) as client:
        client.sendall(SLOW_HEAD)
        while not ended.wait(1):
            client.sendall(b"x")


def measure(port: int, num_requests: int, num_clients: int) -> dict[str, Any]:
    """Run the whole test, and return what was measured by name."""
    with run_server(port) as (process, start_seconds):
        post(port, 0)
        times = []
        for number in range(ALONE):
            begin = time.perf_counter()
            post(port, number)
            times.append(time.perf_counter() - begin)
        result: dict[str, Any] = {
            "start_seconds": round(start_seconds, 1),
            "median_seconds_alone": round(statistics.median(times), 3),
            "clients": num_clients,
            "megabytes": [round(read_memory(process))],
        }
        ended = threading.Event()
        slow = threading.Thread(target=send_slowly, args=(port, ended))
        slow.start()
        for name, ask in (("route", lambda number: post(port, number)), ("page", make_page_client(port))):
            result[name] = put_under_load(ask, num_requests, num_clients)
            result["megabytes"].append(round(read_memory(process)))
        result["slow_client_is_alive"] = slow.is_alive()
        ended.set()
        slow.join()
    return result


def main() -> None:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7868, help="port of the server (7868)")
    parser.add_argument("--requests", type=int, default=100, help="requests on each way in (100)")
    parser.add_argument("--clients", type=int, default=16, help="clients at a time (16)")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.port, arguments.requests, arguments.clients), indent=2))


if __name__ == "__main__":
    main()
