# Looks whether web pages are well, and restarts watchers when they are not. How a page is fetched
# is in _http_probe.py.
#
# Owner: the plugin's thread.

from __future__ import annotations

import asyncio
import http.client
import re
import ssl
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from circusplug import SpecError
from circusplug.options import Names, Path, Regex, Seconds, Secret, declare, option

from ._http_probe import SCHEMES, Answer, HttpProbe
from ._on_thread import on_thread
from ._probing import ProbeOptions, Prober

#: The status of a page that could not be fetched, for statsd; Tornado's, and so Circus's.
_NO_ANSWER = 599
_STATUSES = re.compile(r"(\d{3})(?:-(\d{3}))?")


@dataclass(frozen=True)
class HttpObserverOptions(ProbeOptions):
    """What `HttpObserver` can be told."""

    application_name: str = option(
        "http_observer", meaning="the application, a part of each figure's name"
    )
    check_url: Names = option(
        "http://localhost/",
        meaning="the pages; http+unix://%2Frun%2Fapp.sock/page asks at a Unix socket",
        example="http://localhost/",
    )
    timeout: Seconds = option(10, above=0, meaning="how long an answer may take")
    restart_on_error: Names = option(
        "", meaning="names of watchers to restart, with * and ?", example="web"
    )
    method: Literal["GET", "HEAD", "POST", "OPTIONS"] = option("GET", meaning="how to ask")
    headers: tuple[Secret, ...] = option(
        "",
        meaning="what else to say, each as NAME: VALUE; not to other servers that a page leads to",
    )
    expected_status: Names = option("200-399", meaning="statuses that are well, and ranges of them")
    body_regex: Regex | None = option(None, meaning="what the page has to hold")
    certificate_days: float | None = option(
        None, above=0, meaning="for how long its certificate has to be valid still", unit="days"
    )
    verify: bool = option(True, meaning="whether the certificate has to be right")
    ca_file: Path | None = option(None, meaning="who may sign it; empty: whom the system trusts")

    def __post_init__(self) -> None:
        for url in self.check_url:
            if urlsplit(url).scheme not in SCHEMES or not urlsplit(url).netloc:
                raise SpecError(f"'check_url': {url!r} is no URL of a web page", key="check_url")
            if "@" in urlsplit(url).netloc:
                text = "'check_url': a login in a URL is not sent; write it in 'headers'"
                raise SpecError(text, key="check_url")
        for number, header in enumerate(self.headers, 1):
            name, colon, value = header.partition(":")
            if not (colon and name.strip().isprintable() and value.strip().isprintable()):
                raise SpecError(f"'headers': number {number} is not NAME: VALUE", key="headers")
        for text in self.expected_status:
            if not _STATUSES.fullmatch(text):
                raise SpecError(
                    f"'expected_status': {text!r} is neither a status nor a range as 200-299",
                    key="expected_status",
                )

        if self.ca_file is not None:
            try:
                self.context()
            except OSError as error:
                raise SpecError(f"'ca_file': {error}", key="ca_file") from None

    def context(self) -> ssl.SSLContext:
        """How certificates are checked.

        Raises:
            OSError: There is no such file, or it holds no certificate.
        """
        context = ssl.create_default_context(cafile=self.ca_file)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def complaint(self, answer: Answer) -> str:
        """What is wrong with an answer; empty: nothing."""
        if not any(_holds(text, answer.status) for text in self.expected_status):
            return f"status {answer.status}"
        if self.body_regex is not None:
            body = answer.body.decode("utf-8", "replace")
            if not self.body_regex.search(body):
                return f"{self.body_regex.pattern!r} is not in the page"
        days = answer.certificate_days
        if days is not None and self.certificate_days is not None and days < self.certificate_days:
            return f"the certificate ends in {days:.1f} days"
        return ""


class HttpObserver(Prober):
    """Looks whether web pages are well, and restarts watchers when they are not.

    Every `loop_rate` it fetches each page. One that cannot be fetched, or is not as it should be,
    is a failure; after so many `failures` in a row the watchers of `restart_on_error` are
    restarted. While one of these has just started (`grace`), nothing is fetched. statsd gets
    ``http_stats.request_time``, ``http_stats.error``, ``http_stats.error.STATUS`` (599: no answer)
    and ``http_stats.restart_on_error``.
    """

    name = "http_observer"
    options = declare(HttpObserverOptions)
    group = "http_stats"

    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        options = self.options
        self._headers = {
            name.strip(): value.strip()
            for name, _, value in (header.partition(":") for header in options.headers)
        }
        self._context = options.context()

    def to_restart(self) -> Names:
        return self.options.restart_on_error

    async def probe(self) -> None:
        await asyncio.gather(*map(self._fetch, self.options.check_url))

    async def _fetch(self, url: str) -> None:
        options = self.options
        probe = HttpProbe(url, options.method, self._headers, options.timeout, self._context)
        status = _NO_ANSWER
        try:
            answer = await on_thread(probe.run, probe.abort, options.timeout, "http look")
            status, complaint = answer.status, options.complaint(answer)
        except (OSError, ValueError, http.client.HTTPException) as error:
            complaint = str(error) or type(error).__name__
        if complaint:
            self.count(f"error.{status}", group=self.group)
            await self.ill(url, complaint)
        else:
            self.well(url)
            self.timing("request_time", answer.seconds, self.group)


def _holds(text: str, status: int) -> bool:
    """Whether a range of statuses holds one."""
    first, _, last = text.partition("-")
    return int(first) <= status <= int(last or first)
