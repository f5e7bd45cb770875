# What a plugin Prometheus serves, fetched as Prometheus fetches it.

from __future__ import annotations

import subprocess
import urllib.request
from typing import Any

import debian
from patience import PATIENCE
from prometheus_client.parser import text_string_to_metric_families

PROMTOOL = debian.find("promtool")


def get(url: str, **headers: str) -> tuple[bytes, Any]:
    """The body of the answer, and its headers."""
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return response.read(), response.headers


def scrape(url: str) -> dict[str, float]:
    """What there is, as ``name{label=value,…}``; empty labels are left out, as they count for."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(get(url)[0].decode()):
        for sample in family.samples:
            labels = sorted(sample.labels.items(), reverse=True)  # "watcher" is the first then
            joined = ",".join(f"{key}={value}" for key, value in labels if value)
            assert f"{sample.name}{{{joined}}}" not in found
            found[f"{sample.name}{{{joined}}}"] = sample.value
    return found


def promtool(text: bytes) -> tuple[int, bytes, bytes]:
    """What Prometheus's own tool says to a text: its status and output."""
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=text, capture_output=True, timeout=PATIENCE
    )
    return done.returncode, done.stdout, done.stderr
