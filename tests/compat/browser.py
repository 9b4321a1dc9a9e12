"""A page in headless Chromium, driven over its DevTools protocol: type, press, read its text, take a picture."""

import asyncio
import base64
import contextlib
import itertools
import json
import re
import shutil
import subprocess
import tempfile

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--window-size=1280,900")


def browser_program() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """Drive a page. `requests` are the addresses it asked for, `faults` the errors in its log."""

    def __init__(self, socket):
        self._socket, self._numbers = socket, itertools.count(1)
        self.requests: list[str] = []
        self.faults: list[str] = []

    async def call(self, method: str, **parameters) -> dict:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            heard = await self._socket.receive_json()
            if heard.get("id") == number:
                assert "error" not in heard, heard
                return heard["result"]
            if heard["method"] == "Network.requestWillBeSent":
                self.requests.append(heard["params"]["request"]["url"])
            if heard["method"] == "Runtime.exceptionThrown":
                self.faults.append(str(heard["params"])[:500])

    async def value(self, script: str):
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, script: str, seconds: float = 90) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not await self.value(script):
                    await asyncio.sleep(0.1)
                return
        raise AssertionError(f"not within {seconds} s: {script}; shown: {await self.value('document.body.innerText')}")

    async def of(self, selector: str, script: str):
        """Evaluate `script` on the element of this selector, once it is on the page."""
        element = f"document.querySelector({json.dumps(selector)})"
        await self.until(f"!!{element}")
        return await self.value(element + script)

    async def type(self, selector: str, text: str) -> None:
        await self.of(selector, ".focus()")
        await self.call("Input.insertText", text=text)

    async def press(self, selector: str) -> None:
        await self.of(selector, ".click()")

    async def text(self, selector: str) -> str:
        return await self.of(selector, ".innerText")

    async def picture(self, path) -> None:
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def opened(address: str):
    """Open the `Page` at this address, in a browser of its own."""
    home = tempfile.mkdtemp(prefix="tinygpt-browser-")
    words = [browser_program(), *FLAGS, f"--user-data-dir={home}", "about:blank"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        port = next(found[1] for line in process.stderr if (found := re.search(r"ws://127\.0\.0\.1:(\d+)/", line)))
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                target = next(tab for tab in await answer.json() if tab["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Network", "Page", "Runtime"):
                    await page.call(f"{domain}.enable")
                await page.call("Page.navigate", url=address)
                yield page
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)
