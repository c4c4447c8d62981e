"""A headless Chromium, to see what readers see."""

import html
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
).split()
REPOSITORY = Path(__file__).resolve().parent.parent
LIVE, STATIC = REPOSITORY / "data" / "live", REPOSITORY / "book" / "_static"
PLAYGROUND = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Playground</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="live.css"><script src="live-model.js"></script>
<script src="live-index.js"></script><script src="playground.js"></script>
<div id="cae-playground"></div></html>"""
COMPLAINT = re.compile(r"CONSOLE.*(?:Uncaught|Failed to load|[Ee]rror).*")


def find_browser() -> str | None:
    """Return the path of a Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def write_playground(folder: Path) -> Path:
    """Write the playground, with its scripts and models, and return its page."""
    for source in (*LIVE.iterdir(), *STATIC.glob("*.[jc]s*")):
        shutil.copy(source, folder)
    (folder / "page.html").write_text(PLAYGROUND, encoding="utf-8")
    return folder / "page.html"


def left_by(address: str, user: Path) -> tuple[Any, list[str]]:
    """What the scripts of a document leave as JSON in its element "result", and what the browser
    complained of meanwhile. `user` is a folder for the browser."""
    command = [
        find_browser() or "chromium",
        *FLAGS,
        "--enable-logging=stderr",
        "--dump-dom",
        f"--user-data-dir={user}",
        "--virtual-time-budget=120000",
        address,
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=800)
    match = re.search(r'<pre id="result">(.+?)</pre>', run.stdout, re.DOTALL)
    assert match, f"the browser saw nothing:\n{run.stdout[-500:]}\n{run.stderr[-2000:]}"
    return json.loads(html.unescape(match[1])), COMPLAINT.findall(run.stderr)


class Browser:
    """A headless Chromium that is asked in its own protocol, through a pipe."""

    def __init__(self, folder: Path) -> None:
        (question_end, self.ask), (self.answer, answer_end) = os.pipe(), os.pipe()
        command = [
            "bash",
            "-c",
            f'exec "$@" 3<&{question_end} 4>&{answer_end}',
            "bash",
            find_browser(),
            *FLAGS,
            "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ]
        self.process = subprocess.Popen(
            command,
            pass_fds=(question_end, answer_end),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(question_end)
        os.close(answer_end)
        self.count, self.rest, self.session, self.complaints = 0, b"", None, []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self(f"{domain}.enable")
        self.show_on("screen")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask and wait for the answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        session = {"sessionId": self.session} if self.session else {}
        os.write(self.ask, json.dumps(message | session).encode() + b"\0")
        while (reply := self._read()).get("id") != self.count:
            pass
        assert "error" not in reply, reply
        return reply["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            part = os.read(self.answer, 1 << 16)
            assert part, "the browser has gone"
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\0")
        reply = json.loads(line)
        if reply.get("method") in (
            "Runtime.exceptionThrown",
            "Log.entryAdded",
            "Runtime.consoleAPICalled",
        ):
            self.complaints.append(reply["params"])
        return reply

    def evaluate(self, script: str) -> Any:
        for _ in range(50):
            try:
                answer = self(
                    "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
                )
                break
            except AssertionError as error:  # the page was being replaced by another one
                if "context" not in str(error) and "navigated" not in str(error):
                    raise
                time.sleep(0.1)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a condition in the page is true."""
        for _ in range(600):
            if self.evaluate(condition):
                return
            time.sleep(0.05)
        raise AssertionError(f"it never came true: {condition}; {self.complaints}")

    def open(self, address: str, width: int) -> None:
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        self("Page.navigate", url=address)
        arrived = (
            "document.readyState === 'complete' && "
            f"location.href.split('#')[0] === {address.partition('#')[0]!r}"
        )  # a page may add a fragment
        while not self.evaluate(arrived):
            pass

    def show_on(self, media: str) -> None:
        """On "screen" or "print", to a reader who wants no motion, so there is no waiting."""
        self(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[{"name": "prefers-reduced-motion", "value": "reduce"}],
        )

    def press(self, key: str) -> None:
        codes = dict(Tab=9, End=35, Home=36, ArrowLeft=37, ArrowRight=39, ArrowDown=40)
        number = codes.get(key) or ord(key)
        for kind in ("rawKeyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=number)

    def click(self, what: str, share: float = 0.5) -> None:
        """Press the mouse on an element, at a share of its width."""
        x, y = self.evaluate(f"""(() => {{ const box = document.querySelector({json.dumps(what)})
          .getBoundingClientRect(); return [box.left + {share} * box.width,
          (box.top + box.bottom) / 2]; }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def close(self) -> None:
        os.close(self.ask)
        self.process.terminate()
        self.process.wait(timeout=300)
        os.close(self.answer)
