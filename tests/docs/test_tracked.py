"""What is in the repository belongs there: links lead somewhere, and nothing of the machine it was made on is left."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, tracked

FILES = [path for path in tracked() if b"\0" not in path.read_bytes()]
PAGES = [path for path in FILES if path.suffix == ".md"]
HOSTS = {  # every host that a URL in this repository names
    "127.0.0.1",
    "api.prod.paigo.tech",  # where Paigo's API is, and who gives tokens for it
    "auth.paigo.tech",
    "qnonyh1pc7.execute-api.us-east-1.amazonaws.com",
    "api.cloud.flexprice.io",  # vendors, as their presets and the reference name them
    "api.m3ter.com",
    "api.meteroid.com",
    "api.metronome.com",
    "api.polar.sh",
    "api.stripe.com",
    "api.togai.com",
    "api.withorb.com",
    "ingest.amberflo.io",
    "ingest.m3ter.com",
    "keepachangelog.com",
    "meter-events.stripe.com",
    "semver.org",
    "www.apache.org",
}
# A package registry's name: none is written down, for pip knows where to look.
REGISTRY = re.compile(r"\b(?:pypi|pythonhosted|artifactory|nexus|devpi|jfrog)[\w.-]*\.(?:org|com|io|net|internal)\b")
# A working directory or a home that only its owner has.
MACHINE = re.compile(r"(?<![\w}])/(?:work|root|Users)/\w")


def anchor(heading: str) -> str:
    """What a heading is called in a link."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(path: Path) -> None:
    """To a file that is there, and to a heading that it has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            assert heading in map(anchor, headings), target


def test_no_file_names_a_registry_an_unknown_host_or_a_place_of_one_machine() -> None:
    """A clone works anywhere, and tells nobody where it came from."""
    found = {}
    for path in FILES:
        text = path.read_text(errors="replace")
        hosts = {host for host in re.findall(r"https?://([\w.-]+)", text) if not _example(host)} - HOSTS
        strange = [*sorted(hosts), *REGISTRY.findall(text), *MACHINE.findall(text)]
        if strange:
            found[str(path.relative_to(ROOT))] = strange
    assert found == {}


def _example(host: str) -> bool:
    return host == "localhost" or host.endswith((".example", ".example.com", ".invalid", ".test"))
