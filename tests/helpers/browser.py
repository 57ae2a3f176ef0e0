"""Chromium as a person sees through it: a width, a colour scheme, on screen or on paper; over the DevTools protocol."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
)


def axe_core() -> Path | None:
    """axe.min.js: the file that ``AXE_CORE`` names, or the one that ``make axe`` has installed; None without either."""
    installed = Path(__file__).parents[2] / ".cache/axe/node_modules/axe-core/axe.min.js"
    named = os.environ.get("AXE_CORE")
    file = Path(named) if named else installed
    return file if file.is_file() else None


def _above_ten(descriptor: int) -> int:
    """The same file under a number that is neither 3 nor 4."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


class Browser:
    """A page in a browser of its own, closed at the end of ``with``.

    Messages go through the pipes 3 and 4 that Chromium reads and writes, each ended by a zero byte.
    """

    def __init__(self, profile: Path):
        self._profile, self._number = profile, 0
        self.console: list[str] = []

    def __enter__(self) -> "Browser":
        (ours_in, self._to), (self._from, ours_out) = os.pipe(), os.pipe()
        # Descriptors 3 and 4 of the child: `preexec_fn` would do it too, but is unsafe beside threads.
        ours_in, ours_out = (_above_ten(descriptor) for descriptor in (ours_in, ours_out))
        script = f'exec "$0" "$@" 3<&{ours_in} 4>&{ours_out}'
        command = ["bash", "-c", script, CHROMIUM, *_FLAGS, f"--user-data-dir={self._profile}"]
        self._process = subprocess.Popen(
            command, pass_fds=(ours_in, ours_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(ours_in)
        os.close(ours_out)
        self._read, self._session = b"", None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        self._session = None
        try:
            self._call("Browser.close")
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        for pipe in (self._to, self._from):
            os.close(pipe)

    def show(self, file: Path, *, width: int = 1400, scheme: str = "light", media: str = "screen") -> None:
        """Load a file."""
        self.see(width=width, scheme=scheme, media=media)
        self._call("Page.navigate", url=file.as_uri())
        while self._message().get("method") != "Page.loadEventFired":
            pass

    def see(self, *, width: int, scheme: str = "light", media: str = "screen") -> None:
        """How the page that is loaded is seen from now on."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self._call(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def ask(self, script: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        done = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(str(done["exceptionDetails"])[:500])
        return done["result"].get("value")

    def picture(self, file: Path) -> None:
        """A PNG of the whole page."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def paper(self, file: Path) -> None:
        """A PDF, as the page asks to be printed."""
        self._call("Emulation.setEmulatedMedia", media="print")
        sheet = self._call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        file.write_bytes(base64.b64decode(sheet["data"]))

    def axe(self, axe: Path) -> list[dict[str, Any]]:
        """What axe-core finds that is serious or critical: rule, how many elements, the first of them."""
        self.ask(axe.read_text(encoding="utf-8") + ";0")
        found = self.ask("axe.run().then(found => found.violations)")
        return [
            {"rule": one["id"], "impact": one["impact"], "count": len(one["nodes"]), "first": one["nodes"][0]["html"]}
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        call = {"id": number, "method": method, "params": parameters}
        if self._session:
            call["sessionId"] = self._session
        data = json.dumps(call).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while (message := self._message()).get("id") != number:
            pass
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            part = os.read(self._from, 1 << 20)
            if not part:
                raise OSError("the browser has ended")
            self._read += part
        line, _, self._read = self._read.partition(b"\0")
        message = json.loads(line)
        if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.console.append(json.dumps(message["params"])[:500])
        return message
