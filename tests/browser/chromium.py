"""A headless Chromium for the tests of pages, and the questions that they ask it."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Cell = tuple[int, ...]


def reason_unavailable() -> str | None:
    """Why no page can be opened, or None."""
    if find_spec("selenium") is None:
        return "selenium is not installed"
    missing = [program for program in ("chromium", "chromedriver") if shutil.which(program) is None]
    return f"{' and '.join(missing)} not found on PATH" if missing else None


class Browser:
    """One window. `open` loads a page afresh; the other methods ask about what is shown, and use it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, configuration: str = "") -> None:
        self.driver.get("about:blank")  # another text after # alone would not load the page again
        self.driver.get(f"{page.as_uri()}{'#' if configuration else ''}{configuration}")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def look(self, width: int = 1280, height: int = 900, dark: bool = False, printed: bool = False) -> None:
        """The size of the window, a phone's touch screen if it is narrow, what the system's colours are, and whether
        the page is put on paper."""
        self._tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}  # so that colours are what they will be, at once
        self._tell("Emulation.setTouchEmulationEnabled", enabled=width < 600)
        self._tell("Emulation.setEmulatedMedia", media="print" if printed else "", features=[scheme, still])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._tell("Page.captureScreenshot")["data"]))

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        actions = ActionChains(self.driver, duration=0)
        for key in keys:
            actions.send_keys(key)
        actions.perform()

    def hover(self, element: Any) -> None:
        from selenium.webdriver import ActionChains

        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.driver, duration=0).move_to_element(element).perform()

    def focused(self) -> dict[str, str]:
        """What has the keyboard: its id, class, text and name for screen readers."""
        found: dict[str, str] = self.run(
            """const e = document.activeElement;
            return {id: e.id, class: e.className, text: e.textContent, label: e.getAttribute("aria-label") ?? ""}"""
        )
        return found

    def text(self, selector: str) -> str:
        found: str = self.run("return document.querySelector(arguments[0]).innerText", selector)
        return found

    def cell(self, grid: str, name: str) -> Any:
        """The cell, of the grid with this label, whose name begins so."""
        return self.run(
            """const [grid, name] = arguments;
            const cells = document.querySelectorAll(`[role=grid][aria-label="${grid}"] [role=gridcell]`);
            return [...cells].find((cell) => cell.getAttribute("aria-label").startsWith(name))""",
            grid,
            name,
        )

    def marked(self, grid: str, kind: str) -> set[Cell]:
        """The numbers in brackets in the names of the cells that are marked so: {(3, 2)} for "x[3, 2] = 5"."""
        names = self.run(
            """const [grid, kind] = arguments;
            const cells = document.querySelectorAll(`[role=grid][aria-label="${grid}"] .cell.${kind}`);
            return [...cells].map((cell) => cell.getAttribute("aria-label"))""",
            grid,
            kind,
        )
        return {tuple(map(int, re.findall(r"\d+", " ".join(re.findall(r"\[[^\]]*\]", name))))) for name in names}

    def places(self, grid: str, kind: str) -> set[Cell]:
        """(row, column) of the cells that are marked so."""
        found = self.run(
            """const [grid, kind] = arguments;
            const cells = document.querySelectorAll(`[role=grid][aria-label="${grid}"] .cell.${kind}`);
            const at = (cell) => [cell.parentElement.getAttribute("aria-rowindex"), cell.getAttribute("aria-colindex")];
            return [...cells].map((cell) => at(cell).map((k) => Number(k) - 1))""",
            grid,
            kind,
        )
        return {tuple(place) for place in found}

    def complaints(self) -> list[str]:
        """What the page has written to the console since this was last asked: errors and warnings."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since this was last asked."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def _tell(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)


@contextmanager
def chromium(profile: Path, flags: Sequence[str] = FLAGS) -> Iterator[Browser]:
    """A browser with a profile of its own, which ends with the block."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
