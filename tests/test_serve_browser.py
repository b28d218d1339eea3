"""The page of `fsf serve` in a browser, from two dropped pictures to a download that verifies."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from skimage import data
from swapping import FAST_MODEL

from fsframework.media.image_io import read_image
from fsframework.provenance.verify import verify

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)",
)
SECONDS = 60  # to wait for anything
TOKEN = "0123456789abcdef"
Browser = Callable[..., Any]


class Page:
    """The page, as somebody sees it."""

    def __init__(self, driver: Chrome, address: str, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads
        downloads.mkdir()
        settings = {"behavior": "allow", "downloadPath": str(downloads)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", settings)
        driver.get(address)

    def find(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def wait(self, until: Callable[[], Any]) -> None:
        WebDriverWait(self.driver, SECONDS, 0.05).until(lambda driver: until())

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)  # type: ignore[no-untyped-call]

    def drop(self, name: str, file: Path) -> None:
        """As from a window beside the browser."""
        box = self.driver.find_element(By.CSS_SELECTOR, f"#{name} .drop")
        self.run("arguments[0].scrollIntoView({block: 'center'})", box)
        x, y = self.run("const b = arguments[0].getBoundingClientRect(); return [b.x + b.width / 2, b.y + 9]", box)
        what = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": what})

    def choose(self, name: str, file: Path) -> None:
        """As in the window that the browser opens for it."""
        self.find(f"{name}-file").send_keys(str(file))

    def faces(self, name: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, f"#{name} button.face")

    def pressed(self, name: str) -> list[bool]:
        return [face.get_attribute("aria-pressed") == "true" for face in self.faces(name)]

    def wait_for_result(self) -> None:
        self.wait(lambda: self.find("result").is_displayed() and not self.find("working").is_displayed())

    def download(self, name: str) -> Path:
        file = self.downloads / name
        self.find("download").send_keys(Keys.ENTER)
        self.wait(file.is_file)
        return file

    def complaints(self) -> list[str]:
        """What the browser complained of: errors of the script, and what the policy forbids."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A source of one face, a target of two, a picture of none, and something else."""
    folder = tmp_path_factory.mktemp("pictures")
    face = np.ascontiguousarray(data.astronaut()[:280, 100:380])
    two = np.full((280, 520, 3), 128, np.uint8)
    two[40:240, 10:210] = np.asarray(Image.fromarray(face).resize((200, 200)))
    two[:, 240:] = face[:, ::-1]
    Image.fromarray(face).save(folder / "face.jpg")
    Image.fromarray(two).save(folder / "two.png")
    Image.fromarray(two[:, :10]).resize((300, 300)).save(folder / "none.png")
    (folder / "text.png").write_text("This is no picture.")
    return {file.stem: file for file in folder.iterdir()}


@pytest.fixture(scope="module")
def address(running: Callable[..., Any]) -> Iterator[str]:
    with running("serve", "--runtime", "torch", "--port", "0", "--device", "cpu", "--model", FAST_MODEL) as (found, _):
        yield found


def test_from_drop_to_download(address: str, pictures: dict[str, Path], browser: Browser, tmp_path: Path) -> None:
    with browser(tmp_path / "one") as driver:
        page = Page(driver, address, tmp_path / "downloads")
        assert not page.find("swap").is_enabled()
        page.drop("source", pictures["face"])
        page.drop("target", pictures["two"])
        page.wait(page.find("swap").is_enabled)
        assert page.pressed("source") == [True] and page.pressed("target") == [False, True]
        page.faces("target")[0].click()
        assert page.pressed("target") == [True, False] and "number 1 is swapped" in page.find("target-says").text
        page.find("consent").send_keys("Eileen agreed.")
        page.find("swap").click()
        page.wait_for_result()
        file = page.download("swap.png")
        report = verify(file)
        assert report.verdict == "intact" and report.watermark is not None
        assert report.manifest is not None and report.manifest.consent == "Eileen agreed."
        changed = np.abs(read_image(file).astype(int) - read_image(pictures["two"])).max(axis=2)
        assert changed[:, :220].max() > 60 and changed[:, 260:].max() < 40  # the left face, and a watermark
        texts = [each.text for each in driver.find_elements(By.CSS_SELECTOR, "#faces dd")]
        assert len(texts) == 3 and float(texts[0]) > 0.7 and texts[2].endswith("°")
        loaded = page.run("return [...document.querySelectorAll('#faces img')].map(each => each.naturalWidth)")
        assert len(loaded) == 4 and all(loaded)
        assert not page.find("soft").is_displayed()
        assert page.complaints() == []
        names = page.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert names and all(name.startswith((address, f"blob:{address}", "data:")) for name in names)


def test_all_faces_and_the_mask(address: str, pictures: dict[str, Path], browser: Browser, tmp_path: Path) -> None:
    """On a phone."""
    with browser(tmp_path / "one", phone=True) as driver:
        page = Page(driver, address, tmp_path / "downloads")
        page.choose("source", pictures["face"])
        page.choose("target", pictures["two"])
        page.wait(page.find("swap").is_enabled)
        page.run("arguments[0].scrollIntoView({block: 'center'})", page.find("all"))
        page.find("all").click()
        assert page.pressed("target") == [True, True]
        page.run("document.getElementById('format').value = 'webp'")
        page.run("arguments[0].scrollIntoView({block: 'center'})", page.find("swap"))
        page.find("swap").click()
        page.wait_for_result()
        assert re.match(r"A head of 1[67]\d px is generated at 64 px, ", page.find("soft").text)
        assert len(driver.find_elements(By.CSS_SELECTOR, "#faces .seen")) == 2
        assert not page.find("masks").is_displayed()
        page.run("arguments[0].scrollIntoView({block: 'center'})", page.find("show-masks"))
        page.find("show-masks").click()
        assert page.find("masks").is_displayed() and page.complaints() == []  # it complains of our reading below
        alpha = (
            "const c = document.getElementById('masks');"
            "return arguments[0].map(([x, y]) => c.getContext('2d').getImageData(x, y, 1, 1).data[3])"
        )
        where = page.run("return slots.target.faces.map(face => face.landmarks[2])")  # the noses
        page.wait(lambda: min(page.run(alpha, where)) > 140)
        assert max(page.run(alpha, [[225, 140], [5, 5], [515, 275]])) == 0
        assert verify(page.download("swap.webp")).verdict == "intact"
        wide, window = page.run("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert wide <= window


def test_keyboard_only(address: str, pictures: dict[str, Path], browser: Browser, tmp_path: Path) -> None:
    with browser(tmp_path / "one") as driver:
        page = Page(driver, address, tmp_path / "downloads")

        def focus() -> str:
            element = driver.switch_to.active_element
            return str(element.get_attribute("id") or element.get_attribute("aria-label"))

        def tab() -> str:
            ActionChains(driver).send_keys(Keys.TAB).perform()
            return focus()

        assert tab() == "source-file"
        page.choose("source", pictures["face"])
        page.choose("target", pictures["two"])
        page.wait(page.find("swap").is_enabled)
        page.run("document.getElementById('source-file').focus()")
        order = [tab() for _ in range(8)]
        assert order == [
            "Face 1 of the source", "target-file", "Face 1 of the target", "Face 2 of the target", "all", "consent",
            "format", "label",
        ]  # fmt: skip
        assert tab() == "swap"
        ActionChains(driver).send_keys(Keys.SPACE).perform()
        page.wait_for_result()
        assert focus() == "result-title"
        assert tab() == "download"
        unnamed = (
            "return [...document.querySelectorAll('input, select, button, img, a')].filter(each =>"
            "  !(each.labels?.length || each.textContent.trim() || each.alt || each.ariaLabel)).length"
        )
        assert page.run(unnamed) == 0


def test_what_is_wrong_is_said(address: str, pictures: dict[str, Path], browser: Browser, tmp_path: Path) -> None:
    with browser(tmp_path / "one") as driver:
        page = Page(driver, address, tmp_path / "downloads")
        page.choose("source", pictures["none"])
        page.wait(lambda: "no face was detected" in page.find("source-says").text)
        page.choose("target", pictures["text"])
        page.wait(lambda: "is not a picture in a readable format" in page.find("target-says").text)
        assert not page.find("swap").is_enabled()
        page.choose("source", pictures["face"])
        page.choose("target", pictures["face"])
        page.wait(page.find("swap").is_enabled)
        assert "wrong" not in str(page.find("source-says").get_attribute("class"))


def test_token(running: Callable[..., Any], pictures: dict[str, Path], browser: Browser, tmp_path: Path) -> None:
    """The printed address opens the page, is not kept, and opens it again without the token."""
    with (
        running("serve", "--runtime", "torch", "--port", "0", "--token", TOKEN, "--model", FAST_MODEL) as (address, _),
        browser(tmp_path / "one") as driver,
    ):
        plain = address.partition("?")[0]
        driver.get(plain)
        assert "needs a token" in driver.find_element(By.TAG_NAME, "body").text
        page = Page(driver, address, tmp_path / "downloads")
        page.wait(lambda: "Model" in page.find("about").text)
        assert driver.current_url == plain and page.run("return document.cookie") == ""
        driver.get(plain)
        page.choose("source", pictures["face"])
        page.wait(lambda: "One face" in page.find("source-says").text)
