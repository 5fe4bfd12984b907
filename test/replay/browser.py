"""A headless Chromium driven over the DevTools protocol: no driver binary, one WebSocket."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One page. ``errors``: what its console and its runtime complained about; ``requests``:
    addresses that it asked the network for."""

    def __init__(self, profile: Path, width: int = 1200, height: int = 900) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._process = subprocess.Popen(
            [
                str(PROGRAM),
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
                "--no-first-run",
                "--disable-background-networking",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        address = ""
        for line in self._process.stderr:
            if "DevTools listening on" in line:
                address = line.split()[-1]
                break
        assert address, "chromium ended before it listened"
        self._stack = ExitStack()
        self._socket = self._stack.enter_context(connect(address, max_size=None))
        target = self._send("Target.getTargets")["targetInfos"]
        page = next(item["targetId"] for item in target if item["type"] == "page")
        attached = self._send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )
        self.size(width, height)

    _session = ""

    def size(self, width: int, height: int, phone: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)

    def open(self, path: Path, ready: str, timeout_s: float = 60.0) -> float:
        """Loads a file; returns the seconds until the expression ``ready`` was true."""
        start = time.monotonic()
        self.send("Page.navigate", url=path.as_uri())
        self.until(ready, timeout_s)
        return time.monotonic() - start

    def until(self, condition: str, timeout_s: float = 20.0) -> None:
        """Waits in the page, frame by frame, for an expression to be true."""
        self.run(
            "new Promise((done, fail) => { const end = performance.now() + "
            f"{1e3 * timeout_s}; const look = () => {{ let met = false; "
            f"try {{ met = {condition}; }} catch (error) {{ met = false; }} "
            "if (met) done(true); else if (performance.now() > end) "
            f"fail(new Error('not in time: ' + {json.dumps(condition)})); "
            "else setTimeout(look, 10); }; look(); })"
        )

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        for _ in range(50):
            answer = self.send(
                "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
            )
            problem = answer.get("exceptionDetails")
            if problem is None:
                return answer["result"].get("value")
            text = problem.get("exception", {}).get("description", str(problem))
            if "context was destroyed" not in text:
                raise AssertionError(text)
        raise AssertionError("the page kept on reloading")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._send(method, self._session, **parameters)

    def _send(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=120))
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self._note(answer.get("method", ""), answer.get("params", {}))

    def _note(self, event: str, details: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(str(details["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning"):
            self.errors.append(str(details["args"]))
        elif event == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
            self.errors.append(str(details["entry"]))
        elif event == "Network.requestWillBeSent":
            address = details["request"]["url"]
            if not address.startswith(("file:", "data:", "blob:", "about:")):
                self.requests.append(address)

    def close(self) -> None:
        self._stack.close()
        self._process.terminate()
        self._process.wait(10)
