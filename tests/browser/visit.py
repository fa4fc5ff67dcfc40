"""The page opened in a browser, with all that it asks for and complains about."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.browser.driver import BrowserContext, ConsoleMessage, FilePayload, Locator, Page, Request, expect

CLASSIFY = "/v1/classify"
# Chromium's words for an answer above 399 and for none; it says so however well a page takes it.
FAILED_REQUEST = "Failed to load resource"
ANSWER_TIMEOUT_MS = 30_000


@dataclass
class Visit:
    """One page in a context of its own."""

    page: Page
    url: str
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, context: BrowserContext, url: str) -> "Visit":
        """Opens nothing yet, so that a test can stand in for an answer first."""
        page = context.new_page()
        page.set_default_timeout(ANSWER_TIMEOUT_MS)
        visit = cls(page, url)
        page.on("request", visit._ask)
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("console", visit._hear)
        return visit

    def _ask(self, request: Request) -> None:
        self.requests.append(request)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self) -> "Visit":
        self.page.goto(self.url)
        expect(self.page.locator("#model")).to_contain_text("Precision")
        return self

    # --- what a visitor does ------------------------------------------------------------------

    def choose(self, *files: tuple[str, bytes]) -> None:
        """By the file chooser that the button opens."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_text("Choose images").click()
        payloads: list[FilePayload] = [{"name": n, "mimeType": "image/png", "buffer": content} for n, content in files]
        chooser.value.set_files(payloads)

    def sample(self, label: str) -> Locator:
        return self.page.get_by_role("button", name=f"sample digit {label}")

    def burst(self, size: int) -> None:
        """Returns when it is drawn."""
        self.page.get_by_label("Images", exact=True).select_option(str(size))
        self.page.get_by_role("button", name="Burst").click()
        expect(self.page.locator("#table [data-way=form]").first).to_be_visible(timeout=ANSWER_TIMEOUT_MS)
        expect(self.page.get_by_role("button", name="Burst")).to_be_enabled()

    # --- what the visitor sees ----------------------------------------------------------------

    def card(self, name: str) -> Locator:
        """The latest of this name."""
        heading = self.page.get_by_role("heading", name=name, exact=True)
        return self.page.locator("#results > li", has=heading).first

    def figure(self, way: str, name: str) -> str:
        """A cell of the burst's table."""
        return self.page.locator(f"[data-figure={name}] [data-way={way}]").inner_text()

    # --- what went over the wire --------------------------------------------------------------

    def told(self, image: bytes) -> list[str]:
        """The labels that the service itself gives these bytes, without the page."""
        answer = self.page.request.post(f"{self.url}{CLASSIFY}", data=image)
        return [each["label"] for each in answer.json()["images"][0]["classes"]]

    def shown(self, name: str) -> list[str]:
        """The labels on the latest card of this name."""
        labels = self.card(name).locator(".classes .label")
        expect(labels).not_to_have_count(0)
        return labels.all_inner_texts()

    def sent(self) -> list[Request]:
        """The requests to classify, in the order of sending."""
        return [request for request in self.requests if urlsplit(request.url).path.endswith(CLASSIFY)]

    def answers(self) -> list[dict[str, Any]]:
        found = []
        for request in self.sent():
            response = request.response()
            assert response is not None
            found.append(response.json())
        return found

    def hosts(self) -> set[str]:
        return {urlsplit(request.url).netloc for request in self.requests if not request.url.startswith("blob:")}

    def surprises(self, failures_are_meant: bool) -> list[str]:
        return [text for text in self.complaints if not (failures_are_meant and text.startswith(FAILED_REQUEST))]
