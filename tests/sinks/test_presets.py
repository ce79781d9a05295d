"""What each vendor is told that another is not, and the traps that its preset knows (upstreams' own documentation)."""

import asyncio
from pathlib import Path

import pytest
import yaml

from agent.config.scalars import NS
from agent.config.sinks import Http, Remote
from agent.config.sinks.http import preset
from agent.kinds import build_sink
from agent.sinks import Answer
from tests.sinks.built import section_of, sink_for
from tests.sinks.test_cloudevents import entry, submission
from tests.sinks.vendors import running

DAY = NS["d"]
TERMS = {  # most in a request, how long ids are known, how old usage may be, which instant
    "metronome": (100, 34 * DAY, 34 * DAY, "end"),
    "orb": (500, NS["h"] * 12, None, "mid"),
    "openmeter": (100, 32 * DAY, None, "end"),
    "m3ter": (1000, 35 * DAY, None, "start"),
    "amberflo": (100, DAY, None, "end"),
    "togai": (500, 45 * DAY, None, "end"),
    "flexprice": (1000, 90 * DAY, None, "end"),
    "meteroid": (100, 90 * DAY, None, "end"),
    "polar": (100, 90 * DAY, None, "end"),
    "killbill": (1, 90 * DAY, None, "end"),
    "lago": (100, None, None, "end"),
    "stripe-v1": (1, DAY, 35 * DAY, "end"),
    "stripe-v2": (100, DAY, 35 * DAY, "end"),
}


@pytest.mark.parametrize("name", TERMS)
def test_the_terms_are_the_vendors(name: str, tmp_path: Path) -> None:
    """Batch, horizon and age, as each has published them; where none has, the operator writes it."""
    section = section_of(name, "http://127.0.0.1:9/events/batch", tmp_path)
    assert isinstance(section, Remote)
    terms = build_sink(section).terms
    assert (terms.max_batch, terms.dedupe_horizon, terms.max_age, section.timestamp) == TERMS[name]
    assert terms.key == "record"


@pytest.mark.parametrize("name", sorted(name for name in TERMS if "-" not in name and name != "lago"))
def test_a_preset_is_plain_yaml_with_keys_of_the_section(name: str) -> None:
    """As anybody may copy it into a file of their own: another reader of YAML finds the same in it."""
    path = Path(__file__).parents[2] / "agent/config/presets" / f"{name}.yaml"
    assert yaml.safe_load(path.read_text()) == preset(name)
    assert preset(name).keys() <= Http.model_fields.keys()
    assert "role" not in preset(name)
    assert not any("file" in key for key in preset(name))


def sent(name: str, files: Path, status: int, records: int) -> Answer:
    """What a request of so many records comes to that is answered so."""

    async def story() -> Answer:
        async with running(name, str(status), str(status)) as back:
            sink = sink_for(back, files)
            try:
                return await sink.send(submission(*(sink.render(entry(value=str(n))) for n in range(records))))
            finally:
                await sink.close()

    return asyncio.run(story())


@pytest.mark.parametrize(("records", "outcome", "blocked"), [(2, "split", False), (1, "retry", True)])
def test_m3ters_403_splits_a_batch_and_rejects_nothing(
    tmp_path: Path, records: int, outcome: str, blocked: bool
) -> None:
    """Too large, or credentials that are wrong: in the end one record waits, and nothing is given up."""
    answer = sent("m3ter", tmp_path, 403, records)
    assert (answer.outcome, answer.definite, answer.blocked) == (outcome, True, blocked)


@pytest.mark.parametrize("name", TERMS)
def test_wrong_credentials_keep_everything(name: str, tmp_path: Path) -> None:
    """The sink stops, says so, and no record is rejected for it; no secret is told."""
    answer = sent(name, tmp_path, 401, 1)
    assert (answer.outcome, answer.definite, answer.blocked) == ("retry", True, True)
    assert "s3cret" not in answer.why


def test_togais_422_is_too_large(tmp_path: Path) -> None:
    """And nothing of it was taken."""
    answer = sent("togai", tmp_path, 422, 2)
    assert (answer.outcome, answer.definite) == ("split", True)
