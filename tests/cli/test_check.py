"""`check`: every problem of a file at once, and the rules tried on cases."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.app import app

SOUND = """\
agent: {data_dir: /nowhere/data, run_dir: /nowhere/run}
sources: [{kind: cgroups, include: ["customers.slice/**"]}]
meters: [{meter: cpu.time}]
customers:
  - {id: acme, from: 2026-01-01, reattribute: true, match: [{cgroup: customers.slice/acme}, {unit: "acme-*"}]}
  - {id: former, from: 2025-01-01, until: 2026-01-01, reattribute: true, match: [{unit: former.service}]}
attribution: {system: [{unit: sshd.service}]}
sinks: [{id: files, kind: file, path: /nowhere/out}]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sound configuration."""
    written = tmp_path / "agent.yaml"
    written.write_text(SOUND)
    return written


def check(path: Path, *argv: str) -> tuple[int, str]:
    """Exit code and output."""
    done = CliRunner().invoke(app, ["check", "--config", str(path), *argv])
    return done.exit_code, done.output


def cases(path: Path, *lines: str) -> str:
    """A file of cases beside the configuration."""
    written = path.with_name("cases.yaml")
    written.write_text("".join(f"- {line}\n" for line in lines))
    return str(written)


def test_a_sound_file_is_said_to_be_sound(path: Path) -> None:
    """Exit 0; nothing is started and no directory is made."""
    assert check(path) == (0, f"{path}: sound.\n")


def test_what_may_surprise_is_noted(path: Path) -> None:
    """A notice is no problem: exit 0."""
    path.write_text(SOUND.replace("sinks:", "#"))
    code, said = check(path)
    assert code == 0
    assert "notice: " in said
    assert "no sink: records stay in the spool" in said


def test_every_problem_is_named_at_once(path: Path) -> None:
    """Exit 2; each with file, line and key."""
    path.write_text(SOUND.replace("id: former", "id: acme").replace("kind: file", "kind: fiel"))
    code, said = check(path)
    assert code == 2
    assert f"{path}:6: customers[1].id: acme is already" in said
    assert f"{path}:8: sinks[0].kind:" in said


def test_programs_get_problems_as_json(path: Path) -> None:
    """The same exit code, and one document."""
    path.write_text(SOUND + "nonsense: 1\n")
    code, said = check(path, "--json")
    assert code == 2
    assert json.loads(said)["sound"] is False
    assert "nonsense" in json.loads(said)["problems"][0]


def test_cases_pass_by_the_rules_of_now(path: Path) -> None:
    """A match owns what lies inside it; who is former owns nothing now; `system` and `unattributed` are owners too."""
    file = cases(
        path,
        "{resource: {cgroup: customers.slice/acme}, expect: acme}",
        "{resource: {cgroup: customers.slice/acme/web/worker}, expect: acme}",
        "{resource: {cgroup: customers.slice/acme2}, expect: unattributed}",
        "{resource: {unit: acme-web.service}, expect: acme}",
        "{resource: {unit: former.service}, expect: unattributed}",
        "{resource: {unit: sshd.service}, expect: system}",
    )
    code, said = check(path, "--cases", file)
    assert code == 0, said
    assert "6 of 6 cases pass" in said


def test_a_group_that_is_not_metered_owns_nothing_inside_it(path: Path) -> None:
    """Only metered groups have owners: with the inner group alone included, the outer match is never asked."""
    path.write_text(SOUND.replace("customers.slice/**", "customers.slice/acme/*/worker"))
    file = cases(path, "{resource: {cgroup: customers.slice/acme/web/worker}, expect: acme}")
    assert check(path, "--cases", file)[0] == 0  # the anchor, customers.slice/acme, is metered
    path.write_text(SOUND.replace("customers.slice/**", "customers.slice/*/*/worker"))
    assert check(path, "--cases", file)[0] == 1


def test_a_failed_case_says_who_got_it_and_why(path: Path) -> None:
    """Exit 1; the line of the case, what was expected, what came, and by which rule."""
    file = cases(path, "{resource: {unit: acme-web}, expect: beta}")
    code, said = check(path, "--cases", file)
    assert code == 1
    assert "FAIL  line 1  unit=acme-web  beta      acme  customers[acme].match[1] unit=acme-*" in said
    code, said = check(path, "--cases", file, "--json")
    assert code == 1
    assert json.loads(said)["cases"] == [
        {
            "passed": False,
            "line": 1,
            "labels": {"unit": "acme-web"},
            "expected": "beta",
            "got": "acme",
            "rule": "customers[acme].match[1] unit=acme-*",
        }
    ]


PODS = """\
agent: {data_dir: /nowhere/data, run_dir: /nowhere/run}
sources: [{kind: cgroups, include: ["a/*"]}]
meters: [{meter: cpu.time}]
customers:
  - {id: acme, match: [{namespace: acme-*}, {namespace_labels: "tenant=acme,!trial"}], ids: {bill: cus_1}}
  - {id: globex, match: [{node_labels: pool=globex}]}
attribution:
  customer_labels: {namespace: billing/customer}
  pod_labels: {keys: [paigoCustomerId]}
sinks: [{id: bill, kind: cloudevents, role: copy, url: https://bill.example/x}]
"""


def test_cases_may_be_pods(path: Path) -> None:
    """By every label that a rule may ask of a pod, and by what its namespace allows it to say."""
    path.write_text(PODS)
    file = cases(
        path,
        "{resource: {namespace: acme-prod, pod: web-1, owner: Deployment/web}, expect: acme}",
        "{resource: {namespace: x, namespace_label.tenant: acme}, expect: acme}",
        "{resource: {namespace: x, namespace_label.tenant: acme, namespace_label.trial: 'yes'}, expect: unattributed}",
        "{resource: {namespace: x, node_label.pool: globex}, expect: globex}",
        "{resource: {namespace: x, node_label.pool: globex, namespace_label.billing/customer: acme}, expect: acme}",
        "{resource: {namespace: x, pod_label.paigoCustomerId: acme}, expect: unattributed}",
        "{resource: {namespace: x, pod_label.paigoCustomerId: cus_1, allowed_customers: 'globex, acme'}, expect: acme}",
    )
    code, said = check(path, "--cases", file)
    assert code == 0, said
    assert "7 of 7 cases pass" in said


def test_cases_that_are_none_are_a_problem(path: Path) -> None:
    """Exit 2, as for a bad configuration."""
    code, said = check(path, "--cases", cases(path, "{resource: {pid: 1}, expect: acme}"))
    assert code == 2
    assert "cases.yaml:1" in said
