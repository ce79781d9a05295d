"""The pages that list something list what the program has, no more and no less."""

import re
import tomllib

import pytest
import yaml

from agent.cli import telling
from agent.kinds import KINDS
from agent.sources.kubernetes.meters import SUMMARY
from agent.telemetry import METRICS
from agent.telemetry import metrics as words
from tests.docs.pages import ROOT, block, code, page, section, table

METERS = page("docs/meters.md")
METRICS_PAGE = page("docs/metrics.md")


def test_every_kind_of_source_has_its_table() -> None:
    """A new source is not forgotten."""
    assert set(re.findall(r"^### Source `([a-z-]+)`$", METERS, re.MULTILINE)) == set(KINDS)


SOURCES = {f"Source `{kind}`": meters for kind, meters in KINDS.items()}
SOURCES["Source `kubernetes` with `basis: summary`"] = SUMMARY


@pytest.mark.parametrize("kind", SOURCES)
def test_the_meters_of_a_source_are_as_the_program_has_them(kind: str) -> None:
    """Name, base unit, kind, books and the exact formula, in the program's order."""
    rows = table(section(METERS, kind))
    assert rows == [[f"`{m.name}`", m.unit, m.kind, m.books, m.formula] for m in SOURCES[kind]]


@pytest.mark.parametrize("kind", SOURCES)
def test_the_notes_on_meters_are_the_programs(kind: str) -> None:
    """Which way and how far a counter is off is part of what is billed."""
    notes: dict[str, str] = {}
    for line in section(METERS, kind).splitlines():
        if line.startswith("- "):
            names, _, note = line[2:].partition(": ")
            notes |= {code(name): note for name in names.split(", ")}
    assert notes == {m.name: m.note for m in SOURCES[kind] if m.note}


def test_every_base_unit_is_explained() -> None:
    """A reader can turn any quantity into one that people use."""
    units = [row[0] for row in table(section(METERS, "How to read the tables"))]
    assert sorted(units) == sorted({m.unit for meters in KINDS.values() for m in meters})


def test_flags_and_reasons_of_gaps_are_those_that_explain_knows() -> None:
    """What a record may say is said in one place for people and in one for programs."""
    text = section(METERS, "Records")
    flags = text[text.index("| flag |") :]
    reasons = text[text.index("| gap `reason` |") :]
    assert {code(row[0]) for row in table(flags)} == set(telling.FLAGS)
    assert {code(row[0]) for row in table(reasons)} == set(telling.REASONS)


def test_the_metrics_are_as_the_program_has_them() -> None:
    """Name, type, labels and help, in the order of a scrape."""
    expected = [[f"`{m.name}`", m.type, ", ".join(f"`{label}`" for label in m.labels) or "–", m.help] for m in METRICS]
    assert table(METRICS_PAGE) == expected


@pytest.mark.parametrize(
    ("label", "known"),
    [
        ("`outcome` of sweeps", words.SWEEP_OUTCOMES),
        ("`outcome` of sinks", words.DELIVERY_OUTCOMES),
        ("`outcome` of stuck records", words.STUCK_OUTCOMES),
        ("`reason` of anomalies", words.ANOMALY_REASONS),
        ("`reason` of gaps", tuple(set(telling.REASONS) - {"new_epoch"})),  # that one is known at a start only
        ("`verdict`", words.STEP_VERDICTS),
    ],
)
def test_the_words_of_labels_are_those_of_the_program(label: str, known: tuple[str, ...]) -> None:
    """An alert that names a word matches something."""
    rows = dict(table(METRICS_PAGE[METRICS_PAGE.index("| label | values |") :]))
    assert set(re.findall(r"`(\w+)`", rows[label].partition(";")[0])) == set(known)


def test_the_alerts_ask_for_metrics_and_labels_that_exist() -> None:
    """An alert on a metric that nobody has never fires."""
    labels = {metric.name: set(metric.labels) for metric in METRICS}
    rules = yaml.safe_load(block(section(METRICS_PAGE, "Alerts"), "yaml"))["groups"][0]["rules"]
    assert rules
    for rule in rules:
        asked = re.findall(r"(?:metering|process)_\w+", rule["expr"])
        assert asked, rule["alert"]
        assert set(asked) <= labels.keys(), rule["alert"]
        shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        wanted = set(re.findall(r"(\w+)=~?\"", rule["expr"]))
        assert shown | wanted <= {label for name in asked for label in labels[name]}, rule["alert"]


def test_every_dependency_has_its_reason() -> None:
    """What is installed was decided on."""
    project = tomllib.loads(page("pyproject.toml"))
    groups = project["dependency-groups"]
    named = [*project["project"]["dependencies"], *groups["build"], *(n for n in groups["dev"] if isinstance(n, str))]
    wanted = {re.split(r"[<>=]", name)[0] for name in named}
    listed = {name for row in table(section(page("docs/decisions.md"), "Dependencies")) for name in row[0].split(", ")}
    assert listed == wanted


def test_decisions_are_short_and_numbered() -> None:
    """Six lines a decision, in order, so that a number can be cited."""
    text = page("docs/decisions.md")
    entries = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert [int(entry.partition(".")[0]) for entry in entries] == list(range(1, len(entries) + 1))
    for entry in entries:
        title, _, body = entry.partition("\n")
        body = re.split(r"^#", body, flags=re.MULTILINE)[0]
        assert len(body.strip().splitlines()) <= 6, title
    cited = {int(number) for number in re.findall(r"\((\d+)\)", section(text, "Dependencies"))}
    assert cited <= set(range(1, len(entries) + 1))


def test_decisions_name_modules_that_exist() -> None:
    """A reader finds what is spoken of."""
    for path in re.findall(r"`(agent/[\w/.]+)`", page("docs/decisions.md") + page("CONTRIBUTING.md")):
        assert (ROOT / path).exists(), path
