"""Make docs/serve.webp: the page of `fsf serve` after a swap, rendered by chromium.

    pip install -e ".[test]" && python docs/serve.py

It needs chromium and chromedriver (Debian: chromium, chromium-driver). Eileen Collins (scikit-image) and Grace Hopper
(matplotlib) are in the public domain.
"""

import base64
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from skimage import data

from fsframework.media.image_io import read_image, write_image
from fsframework.utils.files import package_file

WIDTH = 1040  # of the window, in pixels


def main() -> None:
    """Start a server, swap on its page and write the screenshot."""
    command = [sys.executable, "-m", "fsframework", "serve", "--port", "0"]
    with TemporaryDirectory() as folder, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = next(match[0] for line in server.stdout if (match := re.search(r"http://\S+", line)))
            source = Path(folder) / "source.png"
            write_image(source, data.astronaut()[:300, 80:380], synthetic=False)
            png = photograph(address, source, package_file("matplotlib", "grace_hopper.jpg"))
        finally:
            server.terminate()
    write_image(Path(__file__).with_name("serve.webp"), read_image(io.BytesIO(png)), quality=80)


def photograph(address: str, source: Path, target: Path) -> bytes:
    """Return a screenshot of the page at an address after a swap of these images, as PNG."""
    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for setting in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"window-size={WIDTH},900"):
        options.add_argument(f"--{setting}")
    driver = Chrome(options, ChromeService(str(shutil.which("chromedriver"))))
    try:
        driver.get(address)
        driver.find_element(By.ID, "source-file").send_keys(str(source))
        driver.find_element(By.ID, "target-file").send_keys(str(target))
        WebDriverWait(driver, 60).until(lambda page: page.find_element(By.ID, "swap").is_enabled())
        driver.find_element(By.ID, "swap").click()
        WebDriverWait(driver, 60).until(lambda page: page.find_element(By.ID, "result").is_displayed())
        loaded = "return [...document.images].every(image => image.complete)"
        WebDriverWait(driver, 60).until(lambda page: page.execute_script(loaded))
        height = driver.execute_script("return document.documentElement.scrollHeight")  # type: ignore[no-untyped-call]
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
        settings = {"captureBeyondViewport": True, "clip": clip}
        return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", settings)["data"])
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
