"""Who may ask: programs and pages of this machine; from elsewhere, whoever has the token."""

import hmac
import ipaddress
import re
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fsframework.core.errors import UserError
from fsframework.web.server import refusal, with_headers

COOKIE = "fsf_token"
TOKEN = re.compile(r"[A-Za-z0-9_~.-]{16,200}")  # what needs no quotes in an address, a header or a cookie
NO_TOKEN = "This server asks for a token: open the address that it printed, or send the header Authorization: Bearer."
WRONG_HOST = "This server answers under localhost, 127.0.0.1 and [::1] only."
WRONG_ORIGIN = "A page of another site may not ask this server."


def token_for(host: str, token: str | None) -> str | None:
    """The token that a server on an address must ask for: the given one, or off this machine a new one.

    Raises UserError for one that is short or has other characters than addresses, headers and cookies hold.
    """
    if token is None:
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    if not TOKEN.fullmatch(token):
        raise UserError("--token: give 16 to 200 letters, digits, and - _ . ~; or leave it out, and one is made")
    return token


def is_loopback(host: str) -> bool:
    """Whether an address is a number that is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:  # a name
        return False


class Gate:
    """Refuses who may not ask, and adds the headers of every answer.

    Without a token the Host must be this machine, so that no foreign name that leads here (DNS rebinding) opens the
    server to a page of that name. With one it comes as `Authorization: Bearer`, or as a cookie, which the page's own
    address sets (`/?token=...`). Other sites may not send what changes or costs something, in either case.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        send = with_headers(send)
        if self.token is None and not _is_local(headers.get("host", "")):
            await refusal(403, WRONG_HOST)(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD") and _is_foreign(headers):
            await refusal(403, WRONG_ORIGIN)(scope, receive, send)
        elif self.token is None or self._is(_carried(headers)):
            await self.app(scope, receive, send)
        elif scope["path"] == "/" and self._is(_asked(scope)):
            await self.app(scope, receive, self._with_cookie(send))
        else:
            await refusal(401, NO_TOKEN, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _is(self, token: str) -> bool:
        return self.token is not None and hmac.compare_digest(token.encode("latin-1", "replace"), self.token.encode())

    def _with_cookie(self, send: Send) -> Send:
        """No redirection: browsers leave strict cookies out of one that another page began."""
        cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"

        async def setting(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"set-cookie", cookie.encode())]
            await send(message)

        return setting


def _is_local(host: str) -> bool:
    """Whether a Host header, with or without a port, is this machine's name or number."""
    name = re.sub(r":\d*$", "", host).lower()
    return name == "localhost" or is_loopback(name.removeprefix("[").removesuffix("]"))


def _is_foreign(headers: dict[str, str]) -> bool:
    """Whether a browser says that a page of another origin asks. Programs say nothing of it."""
    origin = headers.get("origin")
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return True
    return origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()


def _carried(headers: dict[str, str]) -> str:
    """The token in the headers, or nothing."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _asked(scope: Scope) -> str:
    """The token in the address, or nothing."""
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]
