"""The participants' page and its HTTP interface. It loads no foreign resources and logs nothing.

A participant who agrees gets a token, which the browser stores and sends in the header Authorization. The token alone
links a person to answers. Errors are `{"error": "A sentence."}`.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from fsframework.core.errors import UserError
from fsframework.web.server import add_errors, add_page, address, listen, refusal, run, with_headers
from fsframework.web.study.plan import ANSWERS, CONSENT, PICTURES, Study
from fsframework.web.study.store import Full, OtherAnswer, Store, UnknownToken

LARGEST = 4096  # bytes of a request's body
HERE = Path(__file__).parent


class Agreement(BaseModel):
    """The request that starts a participation."""

    model_config = ConfigDict(extra="forbid")
    agreed: Literal[True]


class Choices(BaseModel):
    """The answers of a trial: its position in the participant's order, from 1, and the chosen image by question."""

    model_config = ConfigDict(extra="forbid")
    place: Annotated[int, Field(strict=True, ge=1)]
    choices: dict[str, str]


def serve(folder: Path, host: str, port: int, echo: Callable[[str], None]) -> None:
    """Serve a study until Ctrl-C or SIGTERM, then store the answers in progress and stop.

    Parameters
    ----------
    folder:
        The study's folder.
    host, port:
        The address to bind; port 0 selects a free one.
    echo:
        Prints a line: the page's address, or a note about the consent text.

    Raises
    ------
    UserError
        There is no such study, one of its files cannot be used, or the port is taken.
    """
    study = Study.load(folder)
    consent = _consent(folder)
    if missing := sorted(name for name in study.pictures() if not (folder / PICTURES / name).is_file()):
        raise UserError(f"{folder / PICTURES / missing[0]}: is missing; put a copy of the study's folder back")
    listening = listen(host, port)
    try:
        store = Store(folder / ANSWERS, study.id)
    except UserError:
        listening.close()
        raise
    try:
        if "[" in consent[-1]:
            echo(f"note: {folder / CONSENT} does not name who runs the study; replace its last line")
        echo(f"study: {address(listening.getsockname()[0], listening)} (Ctrl-C ends it)")
        run(build(study, consent, folder, store), listening)
    finally:
        listening.close()
        store.close()


def _consent(folder: Path) -> list[str]:
    """Return the paragraphs of consent.txt. Raise UserError if there are none."""
    file = folder / CONSENT
    try:
        paragraphs = [" ".join(part.split()) for part in file.read_text(encoding="utf-8-sig").split("\n\n")]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: cannot be read: {reason}; write what people agree to, in UTF-8") from error
    if not any(paragraphs):
        raise UserError(f"{file}: is empty; write what people agree to")
    return [part for part in paragraphs if part]


def build(study: Study, consent: list[str], folder: Path, store: Store) -> FastAPI:
    """Return the application: the page at /, its images, and its interface under /api."""
    app = FastAPI(
        title="fsf study", openapi_url=None
    )  # no schema, so no documentation pages, which load foreign scripts
    app.add_middleware(_Guard)
    pictures = study.pictures()
    questions = {question.id for question in study.questions}

    def authenticated(authorization: Annotated[str, Header()] = "") -> tuple[str, int, set[tuple[int, str]]]:
        """Return the participant's token, number and answered (trial, question) pairs."""
        token = authorization.removeprefix("Bearer ")
        return token, *store.participant(token)

    Participant = Annotated[tuple[str, int, set[tuple[int, str]]], Depends(authenticated)]

    def state(number: int, answered: set[tuple[int, str]]) -> dict[str, Any]:
        """Return a participant's progress and the first trial without all answers."""
        order = study.order(number)
        missing = [
            index for index, trial in enumerate(order) if {(trial, question) for question in questions} - answered
        ]
        result: dict[str, Any] = {"trials": len(order), "answered": len(order) - len(missing), "next": None}
        if missing:
            trial = study.trials[order[missing[0]]]
            options = [trial.options[index].picture for index in study.shown(order[missing[0]], number)]
            result["next"] = {
                "place": missing[0] + 1, "source": trial.source, "target": trial.target, "options": options
            }  # fmt: skip
        return result

    add_page(app, HERE)

    @app.get("/pictures/{name}")
    def picture(name: str) -> FileResponse:
        if name not in pictures:
            raise HTTPException(404, "There is no such image.")
        return FileResponse(folder / PICTURES / name, headers={"Cache-Control": "private, max-age=86400"})

    @app.get("/api/study")
    def about() -> dict[str, Any]:
        return {
            "id": study.id,
            "consent": consent,
            "trials": len(study.trials),
            "side": study.side,
            "questions": [question.model_dump() for question in study.questions],
        }

    @app.post("/api/participants", status_code=201)
    def join(agreement: Agreement) -> dict[str, Any]:
        token = store.join()
        return {"token": token, **state(*store.participant(token))}

    @app.get("/api/trial")
    def trial(participant: Participant) -> dict[str, Any]:
        return state(*participant[1:])

    @app.post("/api/answers")
    def answer(participant: Participant, submitted: Choices) -> dict[str, Any]:
        token, number, _ = participant
        order = study.order(number)
        if submitted.place > len(order):
            raise HTTPException(404, f"There is no trial {submitted.place}; the last is {len(order)}.")
        if submitted.choices.keys() != questions:
            raise HTTPException(422, f"Answer these questions and no others: {', '.join(sorted(questions))}.")
        trial_number = order[submitted.place - 1]
        options = {option.picture: index for index, option in enumerate(study.trials[trial_number].options)}
        if not set(submitted.choices.values()) <= options.keys():
            raise HTTPException(422, "A chosen image is not in this trial.")
        store.answer(token, trial_number, {question: options[name] for question, name in submitted.choices.items()})
        return state(*store.participant(token))

    @app.delete("/api/participants")
    def withdraw(participant: Participant) -> dict[str, Any]:
        store.withdraw(participant[0])
        return {"withdrawn": True}

    _add_errors(app)
    return app


def _add_errors(app: FastAPI) -> None:
    """Convert errors of the store to refusals."""
    add_errors(app)

    @app.exception_handler(UnknownToken)
    def unknown(request: Request, error: UnknownToken) -> JSONResponse:
        return refusal(401, "No participant has this token; perhaps the answers were withdrawn.")

    @app.exception_handler(OtherAnswer)
    def other(request: Request, error: OtherAnswer) -> JSONResponse:
        return refusal(409, "This trial already has another answer; the first answer stands.")

    @app.exception_handler(Full)
    def full(request: Request, error: Full) -> JSONResponse:
        return refusal(403, "The study accepts no more participants.")

    @app.exception_handler(sqlite3.Error)
    def broken(request: Request, error: sqlite3.Error) -> JSONResponse:
        return refusal(503, "The answers cannot be stored at the moment; try again.")


class _Guard:
    """Middleware that refuses bodies above LARGEST or of unknown size, and adds the security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        guarded = with_headers(send)
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers or not length.isdigit() or int(length) > LARGEST:
            await refusal(413, f"Requests have at most {LARGEST} bytes and a Content-Length.")(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)
