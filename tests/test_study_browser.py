"""The study's page in a browser, from the first click to the table of results."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from fsframework.cli.main import fsf
from fsframework.web.study.plan import Study
from fsframework.web.study.results import results
from fsframework.web.study.store import read

pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)",
)
SECONDS = 60  # to wait for anything


class Page:
    """The page, as somebody sees it."""

    def __init__(self, driver: Chrome, address: str) -> None:
        self.driver = driver
        driver.get(address)

    def find(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def wait(self, until: Callable[[], Any]) -> None:
        WebDriverWait(self.driver, SECONDS, 0.05).until(lambda driver: until())

    def wait_for(self, name: str) -> None:
        self.wait(lambda: self.find(name).is_displayed())

    def agree(self) -> None:
        self.wait_for("agree")
        self.find("agree").click()
        self.wait_for("trial")

    def options(self, question: str) -> list[str]:
        """The pictures to choose from, as they are named."""
        inputs = self.driver.find_elements(By.CSS_SELECTOR, f"input[name={question}]")
        return [str(each.get_attribute("value")) for each in inputs]

    def picture(self, question: str, place: int) -> WebElement:
        """To be clicked, which brings it into view first."""
        found = self.driver.find_elements(By.CSS_SELECTOR, f"label:has(input[name={question}]) img")[place]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)  # type: ignore[no-untyped-call]
        return found

    def chosen(self) -> dict[str, str]:
        checked = self.driver.find_elements(By.CSS_SELECTOR, "input:checked")
        return {str(each.get_attribute("name")): str(each.get_attribute("value")) for each in checked}

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def after(self, act: Callable[[], None]) -> None:
        """Do something that leads to another task, or to the end."""
        where = self.find("where").text
        act()
        self.wait(lambda: self.find("end").is_displayed() or self.find("where").text not in ("", where))

    def take_part(self, study: Study, wanted: str, answer: Callable[[dict[str, int]], None]) -> int:
        """Choose one method wherever it is to be had, and what is right in checks; how many tasks there were.

        `answer` gets the place of the picture to choose, by question.
        """
        what = {option.picture: option.what for trial in study.trials for option in trial.options}
        known = {"identity": "source", "attributes": "target", "realism": "target"}
        count = 0
        while self.find("trial").is_displayed():
            places = {}
            for question in known:
                names = [what[picture] for picture in self.options(question)]
                places[question] = names.index(wanted if wanted in names else known[question])
            self.after(lambda: answer(places))  # noqa: B023 (it is called here)
            count += 1
        return count

    def click_answers(self, places: dict[str, int]) -> None:
        for question, place in places.items():
            self.picture(question, place).click()
        self.find("next").click()

    def type_answers(self, places: dict[str, int]) -> None:
        self.press(*(str(place + 1) for place in places.values()), Keys.ENTER)

    def check_width(self) -> None:
        """Nothing is to be pushed sideways, and the word synthetic is there."""
        sizes = "return [document.documentElement.scrollWidth, window.innerWidth]"
        wide, window = self.driver.execute_script(sizes)  # type: ignore[no-untyped-call]
        assert wide <= window
        assert "synthetic pictures" in self.driver.find_element(By.TAG_NAME, "header").text

    def complaints(self) -> list[str]:
        """What the browser complained of: errors of the script, and what the policy forbids."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "study"


@pytest.fixture
def study(folder: Path, toy_study: Callable[..., Study]) -> Study:
    return toy_study(folder)


def test_two_people_from_the_first_click_to_the_table(
    folder: Path, study: Study, tmp_path: Path, serving: Callable[..., Any], browser: Callable[..., Any]
) -> None:
    """One clicks, the other one taps on a phone, both at once."""
    with (
        serving(folder) as (address, _),
        browser(tmp_path / "one") as one,
        browser(tmp_path / "two", phone=True) as two,
    ):
        counts: dict[str, int] = {}

        def take_part(page: Page, wanted: str) -> None:
            page.agree()
            counts[wanted] = page.take_part(study, wanted, page.click_answers)

        pages = {"a": Page(one, address), "b": Page(two, address)}
        threads = [threading.Thread(target=take_part, args=[page, wanted]) for wanted, page in pages.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == {"a": 6, "b": 6}
        assert "All your answers are stored" in pages["a"].find("end").text
        done = CliRunner().invoke(fsf, ["study", "results", str(folder)], catch_exceptions=False)
        for page in pages.values():
            assert page.complaints() == []
            loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
            names = page.driver.execute_script(loaded)  # type: ignore[no-untyped-call]
            assert names and all(name.startswith(address) for name in names)
    found = results(folder)
    assert [found[key] for key in ("participants", "counted", "finished")] == [2, 2, 2]
    for question in found["questions"]:
        assert [numbers["percent"] for numbers in question["methods"].values()] == [50, 50, 0]
        assert question["kappa"] == pytest.approx(-1)
    assert done.output.count("50.0 (0.0 to 100.0)") == 6 and "2 of 2 participants count" in done.output


def test_keyboard_only(
    folder: Path, study: Study, tmp_path: Path, serving: Callable[..., Any], browser: Callable[..., Any]
) -> None:
    with serving(folder) as (address, _), browser(tmp_path / "one") as driver:
        page = Page(driver, address)
        page.wait_for("agree")
        page.press(Keys.TAB, Keys.ENTER)
        page.wait_for("trial")
        assert driver.switch_to.active_element.text == "Task 1 of 6"
        page.press(Keys.ENTER)  # nothing is answered: the task stays, and the first picture gets the focus
        assert page.find("where").text == "Task 1 of 6"
        page.press("9", "0", "x")  # no such picture
        assert page.chosen() == {}
        page.press(Keys.SPACE, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)  # as in any other form
        assert page.chosen() == {"identity": page.options("identity")[2]}
        assert page.take_part(study, "c", page.type_answers) == 6
        assert page.complaints() == []
    assert results(folder)["questions"][0]["methods"]["c"]["percent"] == 100


def test_reload_and_another_start_of_the_browser(
    folder: Path, study: Study, tmp_path: Path, serving: Callable[..., Any], browser: Callable[..., Any]
) -> None:
    with serving(folder) as (address, _):
        with browser(tmp_path / "one") as driver:
            page = Page(driver, address)
            page.agree()
            page.after(lambda: page.press("1", "1", "1", Keys.ENTER))
            page.press("2", "3")
            chosen = page.chosen()
            assert len(chosen) == 2
            driver.refresh()
            page.wait_for("trial")
            assert page.find("where").text == "Task 2 of 6" and page.chosen() == chosen
        with browser(tmp_path / "one") as driver:
            page = Page(driver, address)
            page.wait_for("trial")
            assert page.find("where").text == "Task 2 of 6" and page.chosen() == chosen
    assert len(read(folder / "answers.sqlite", study.id)) == 3


def test_answers_wait_for_a_server_that_is_away(
    folder: Path, study: Study, tmp_path: Path, serving: Callable[..., Any], browser: Callable[..., Any]
) -> None:
    with browser(tmp_path / "one") as driver:
        with serving(folder) as (address, process):
            page = Page(driver, address)
            page.agree()
            process.kill()
        page.press("1", "1", "1", Keys.ENTER)
        page.wait_for("notice")
        assert "Your answers are kept here" in page.find("notice").text
        with serving(folder, int(address.rpartition(":")[2])):
            page.wait(lambda: page.find("where").text == "Task 2 of 6")
            assert not page.find("notice").is_displayed()
    assert len(read(folder / "answers.sqlite", study.id)) == 3


def test_withdrawing(
    folder: Path, study: Study, tmp_path: Path, serving: Callable[..., Any], browser: Callable[..., Any]
) -> None:
    with serving(folder) as (address, _), browser(tmp_path / "one") as driver:
        page = Page(driver, address)
        page.wait_for("agree")
        assert not page.find("withdraw").is_displayed()
        page.agree()
        page.after(lambda: page.press("1", "1", "1", Keys.ENTER))
        page.find("withdraw").click()
        driver.switch_to.alert.dismiss()
        assert page.find("trial").is_displayed() and len(read(folder / "answers.sqlite", study.id)) == 3
        page.find("withdraw").click()
        driver.switch_to.alert.accept()
        page.wait_for("withdrawn")
        assert read(folder / "answers.sqlite", study.id) == []
        driver.refresh()
        page.wait_for("consent")


def test_two_tabs(
    folder: Path, study: Study, tmp_path: Path, serving: Callable[..., Any], browser: Callable[..., Any]
) -> None:
    """Whoever answers a task in another tab meanwhile goes on with the next one."""
    with serving(folder) as (address, _), browser(tmp_path / "one") as driver:
        page = Page(driver, address)
        page.agree()
        first = driver.current_window_handle
        driver.switch_to.new_window("tab")
        Page(driver, address).wait_for("trial")
        page.after(lambda: page.press("1", "1", "1", Keys.ENTER))
        driver.switch_to.window(first)
        assert page.find("where").text == "Task 1 of 6"
        page.after(lambda: page.press("2", "2", "2", Keys.ENTER))
        assert page.find("where").text == "Task 2 of 6" and "the first answer stands" in page.find("notice").text
    assert len(read(folder / "answers.sqlite", study.id)) == 3


@pytest.mark.parametrize("phone", [False, True])
def test_what_can_be_read_and_touched(
    folder: Path, study: Study, tmp_path: Path, serving: Callable[..., Any], phone: bool, browser: Callable[..., Any]
) -> None:
    with serving(folder) as (address, _), browser(tmp_path / "one", phone) as driver:
        page = Page(driver, address)
        page.wait_for("consent")
        page.check_width()
        page.agree()
        page.check_width()
        names = [image.get_attribute("alt") for image in driver.find_elements(By.TAG_NAME, "img")]
        told = ["Result 1", "Result 2", "Result 3"]
        assert names == ["Source", *told, "Target", *told, *told]
        spoken = [each.accessible_name for each in driver.find_elements(By.CSS_SELECTOR, "input")]
        assert spoken == told * 3
        sets = driver.find_elements(By.TAG_NAME, "fieldset")
        assert [each.accessible_name for each in sets] == [
            f"{number} of 3: {question.text}" for number, question in enumerate(study.questions, 1)
        ]
        for each in driver.find_elements(By.CSS_SELECTOR, "label, button"):
            if each.is_displayed():
                assert min(each.size.values()) >= 44  # pixels, for a finger
        if phone:
            page.picture("identity", 2).click()
            page.wait(lambda: page.chosen() == {"identity": page.options("identity")[2]})
        assert json.loads(driver.execute_script("return JSON.stringify(document.cookie)")) == ""  # type: ignore[no-untyped-call]
