"""Each kind of sink by its section, as a person writes it, against a back end on loopback."""

from pathlib import Path

from agent.config.sinks import SinkSection
from agent.kinds import build_sink
from agent.sinks import Sink
from tests.config.written import load, text
from tests.sinks.vendors import TOKEN, Back

DIMENSIONS = "dimensions: {cpu_time: {id: cpu, unit: core-second, aggregation: sum}}"


def section_of(name: str, url: str, files: Path) -> SinkSection:
    """The section of a preset, or of `lago`, `stripe-v1` or `stripe-v2`."""
    (files / "token").write_text(TOKEN)
    (files / "user").write_text("admin")
    base = url.rpartition("127.0.0.1:")[2].partition("/")[0]
    token, basic = f"token_file: {files}/token", f"{{user_file: {files}/user, password_file: {files}/token}}"
    told = {
        "m3ter": f"oauth2: {{token_url: 'http://127.0.0.1:{base}/oauth/token', client_id_file: {files}/user, "
        f"client_secret_file: {files}/token}}",
        "killbill": f"basic: {basic}",
        "orb": f"{token}, dedupe_horizon: 12h",
        "openmeter": f"{token}, dedupe_horizon: 32d",
        "amberflo": f"{token}, dedupe_horizon: 1d",
    }.get(name, token)
    if name == "lago":
        kind = f"kind: lago, {token}, url: '{url}'"
    elif name.startswith("stripe"):
        api = "v1" if name == "stripe-v1" else "v2-stream"
        kind = (
            f"kind: stripe, api: {api}, {token}, url: 'http://127.0.0.1:{base}', stream_url: 'http://127.0.0.1:{base}'"
        )
    else:
        kind = f"kind: http, preset: {name}, {told}, url: '{url}'"
    (section,) = load(text(sinks=f"sinks: [{{id: x, {kind}, {DIMENSIONS}}}]")).sinks
    return section


def sink_for(back: Back, files: Path) -> Sink:
    """The sink of a vendor, as built by the agent."""
    return build_sink(section_of(back.name, back.url, files))
