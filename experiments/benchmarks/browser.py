"""Chromium without a window, by way of Qt WebEngine: pip install 'rlvr_jax[browser]'."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_SECONDS = 60.0  # for one answer


@contextlib.contextmanager
def browser(width: int = 1200, height: int = 900) -> Iterator["Page"]:
    """A browser with one page. One per process at a time; it has no network but what the page asks for."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--no-sandbox --disable-gpu")
    os.environ.setdefault("QT_LOGGING_RULES", "*=false")
    from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineUrlRequestInterceptor
    from PySide6.QtWebEngineWidgets import QWebEngineView
    from PySide6.QtWidgets import QApplication

    asked: list[str] = []
    said: list[str] = []

    class Recorder(QWebEngineUrlRequestInterceptor):
        def interceptRequest(self, info: Any) -> None:  # noqa: N802  # of Qt
            asked.append(info.requestUrl().toString())

    class OwnPage(QWebEnginePage):
        def javaScriptConsoleMessage(self, _level: Any, text: str, line: int, _source: str) -> None:  # noqa: N802  # of Qt
            said.append(f"line {line}: {text}")

    app = QApplication.instance() or QApplication([])
    view, recorder = QWebEngineView(), Recorder()
    page = OwnPage(view)
    page.setUrlRequestInterceptor(recorder)
    view.setPage(page)
    view.resize(width, height)
    view.show()
    try:
        yield Page(app, view, page, asked, said)
    finally:
        view.close()
        page.deleteLater()
        app.processEvents()


class Page:
    """The page of a browser.

    Attributes:
      asked: addresses that it has asked for.
      said: lines of its console, errors of its scripts among them.
    """

    def __init__(self, app: Any, view: Any, page: Any, asked: list[str], said: list[str]):
        self._app, self._view, self._page, self.asked, self.said = app, view, page, asked, said

    def open(self, path: Path) -> None:
        """Loads a file."""
        from PySide6.QtCore import QUrl

        done: list[bool] = []
        self._page.loadFinished.connect(done.append)
        self._page.load(QUrl.fromLocalFile(str(path.absolute())))
        self._wait(lambda: done, f"{path} to load")
        if not done[-1]:
            raise RuntimeError(f"{path} can't be loaded")

    def evaluate(self, script: str) -> Any:
        """The value of an expression, as plain data."""
        found: list[Any] = []
        self._page.runJavaScript(script, found.append)
        self._wait(lambda: found, script)
        return found[0]

    def wait_for(self, condition: str) -> None:
        """Waits until an expression is true. Raises TimeoutError, with what the page said, if it does not become so."""
        self._wait(lambda: self.evaluate(f"Boolean({condition})"), condition)

    def picture(self, path: Path) -> None:
        """Writes what is visible as a PNG."""
        self._wait(lambda: True, "a picture")
        self._view.grab().save(str(path))

    def _wait(self, condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + _SECONDS
        while True:
            self._app.processEvents()
            if condition():
                return
            if time.monotonic() > end:
                raise TimeoutError(f"the browser waited in vain for {what}; it said {self.said}")
            time.sleep(0.002)
