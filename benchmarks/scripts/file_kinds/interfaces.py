"""The command `fsf`, `fsf serve` and the Python interface, each run on a case in this process."""

import io
import json
import re
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache
from pathlib import Path
from unittest import mock

import fsframework
from file_kinds.case import Case, Outcome
from fsframework.api.swapping import SwapPipeline, load_swapper
from fsframework.cli.main import main
from fsframework.core.errors import UserError
from fsframework.provenance.options import ProvenanceOptions

MODEL = ["--model", "faceshifter-lfw-64", "--runtime", "torch", "--device", "cpu"]
FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


class Interface:
    """A way to swap."""

    name = "fsf"

    def takes(self, case: Case) -> bool:
        """Return whether the interface can run a case."""
        return True

    def run(self, case: Case) -> Outcome:
        """Run a case."""
        arguments = [str(part) for part in case.arguments]
        if arguments[:1] == ["swap"]:
            arguments[1:1] = MODEL
        status, text = run_command(arguments)
        return Outcome(status, text, case.out, "--no-provenance" not in arguments)

    def refusal_problems(self, outcome: Outcome) -> list[str]:
        """Return what is wrong with a refusal, none if it is a line with a remedy, or of wrong usage."""
        lines = [line for line in outcome.text.strip().splitlines() if not line.startswith("note: ")]
        if "Traceback" in outcome.text:
            return [f"a traceback: {lines[-1]}"]
        if outcome.status == 2 and lines and lines[-1].startswith("Error: "):
            return []
        if outcome.status != 1 or len(lines) != 1 or not re.search(r"; \w", lines[0]):
            return [f"status {outcome.status} with {len(lines)} lines: {lines[-1:]}"]
        return []


class Serve(Interface):
    """`fsf serve`, by HTTP."""

    name = "fsf serve"

    def __init__(self, address: str) -> None:
        self.address = address

    def takes(self, case: Case) -> bool:
        return case.portable

    def run(self, case: Case) -> Outcome:
        *_, source, target, out = map(Path, case.arguments)
        fields = {"face": case.face, "format": FORMATS[out.suffix.lower()]}
        boundary = uuid.uuid4().hex
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        ]
        for name, file in (("source", source), ("target", target)):
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'
            parts.append(head.encode() + (file.read_bytes() if file.is_file() else b"") + b"\r\n")
        body = b"".join(parts) + f"--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        request = urllib.request.Request(f"{self.address}/api/swap", body, headers)
        result = out.with_name(f"serve_{out.name}")
        try:
            with urllib.request.urlopen(request) as answer:
                result.write_bytes(answer.read())
        except urllib.error.HTTPError as error:
            text = str(json.loads(error.read()).get("error", ""))
            return Outcome(1 if 400 <= error.code < 500 else 70, text, result, True)
        return Outcome(0, "", result, True)


class Python(Interface):
    """The Python interface."""

    name = "Python"

    def __init__(self, swapper: SwapPipeline) -> None:
        self.swapper = swapper

    def takes(self, case: Case) -> bool:
        return case.portable

    def run(self, case: Case) -> Outcome:
        *_, source, target, out = case.arguments
        result = Path(out).with_name(f"python_{Path(out).name}")
        marked = "--no-provenance" not in case.arguments
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                swap = self.swapper.swap(str(source), str(target), case.face, ProvenanceOptions(marked))
                swap.save(result)
        except UserError as error:
            return Outcome(1, str(error), result, marked)
        except Exception as error:
            return Outcome(70, f"Traceback: {type(error).__name__}: {error}", result, marked)
        return Outcome(0, f"{said.getvalue()}\n{swap.note or ''}", result, marked)


def run_command(arguments: list[str]) -> tuple[int, str]:
    """Run `fsf` in this process; return its exit status and what it printed."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), mock.patch.object(sys, "argv", ["fsf", *arguments]):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0
        except Exception as error:  # where the command prints a traceback
            printed.write(f"Traceback: {type(error).__name__}: {error}\n")
            status = 70
    return status, printed.getvalue()


@contextmanager
def every_interface(swapper: SwapPipeline) -> Iterator[list[Interface]]:
    """Yield the three interfaces. The command loads each model once, and a server runs on a free port."""
    from fsframework.web.serve.app import serve

    ready = threading.Event()
    addresses: list[str] = []

    def echo(line: str) -> None:
        addresses.append(re.findall(r"http://[\w.:]+", line)[0])
        ready.set()

    server = threading.Thread(
        target=serve, args=(lambda: swapper.face_swapper, "127.0.0.1", 0, None, echo), daemon=True
    )
    server.start()
    ready.wait(60)
    with mock.patch.object(fsframework, "load_swapper", lru_cache(load_swapper), create=True):
        yield [Interface(), Serve(addresses[0]), Python(swapper)]
