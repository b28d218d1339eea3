"""Access control: programs and pages of this machine, or any client with the token."""

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
TOKEN = re.compile(r"[A-Za-z0-9_~.-]{16,200}")  # characters that need no quoting in URLs, headers and cookies
NO_TOKEN = "This server needs a token: open the address that it printed, or send the header Authorization: Bearer."
WRONG_HOST = "This server answers under localhost, 127.0.0.1 and [::1] only."
WRONG_ORIGIN = "Requests from pages of other sites are refused."


def token_for(host: str, token: str | None) -> str | None:
    """Return the token that a server requires: the given one, a new one if other machines reach the host, or None.

    Raises
    ------
    UserError
        The token is short, or has characters that URLs, headers or cookies do not hold.
    """
    if token is None:
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    if not TOKEN.fullmatch(token):
        raise UserError("--token: give 16 to 200 letters, digits, and - _ . ~; or leave it out to generate one")
    return token


def is_loopback(host: str) -> bool:
    """Return whether an address is a loopback IP address."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:  # a host name
        return False


class Gate:
    """Middleware that authorises requests, and adds the security headers of every response.

    Without a token the Host header must be this machine. This prevents DNS rebinding, where a foreign name that
    resolves to this machine opens the server to that name's pages. With a token, it is sent as `Authorization: Bearer`,
    or as a cookie, which the page's own address sets (`/?token=...`). Requests from other sites are refused in either
    case, unless they are GET or HEAD.
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
        elif self.token is None or self._is(_token_of_headers(headers)):
            await self.app(scope, receive, send)
        elif scope["path"] == "/" and self._is(_token_of_query(scope)):
            await self.app(scope, receive, self._with_cookie(send))
        else:
            await refusal(401, NO_TOKEN, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _is(self, token: str) -> bool:
        return self.token is not None and hmac.compare_digest(token.encode("latin-1", "replace"), self.token.encode())

    def _with_cookie(self, send: Send) -> Send:
        """Return a `send` that sets the cookie.

        A redirect does not work, because browsers omit strict cookies after links from other pages.
        """
        cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"

        async def setting(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"set-cookie", cookie.encode())]
            await send(message)

        return setting


def _is_local(host: str) -> bool:
    """Return whether a Host header, with or without a port, is localhost or a loopback address."""
    name = re.sub(r":\d*$", "", host).lower()
    return name == "localhost" or is_loopback(name.removeprefix("[").removesuffix("]"))


def _is_foreign(headers: dict[str, str]) -> bool:
    """Return whether the headers show a request from a page of another origin; programs send no such headers."""
    origin = headers.get("origin")
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return True
    return origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()


def _token_of_headers(headers: dict[str, str]) -> str:
    """Return the token in the headers, or an empty string."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _token_of_query(scope: Scope) -> str:
    """Return the token in the URL's query, or an empty string."""
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]
