"""What the README says can be typed, can be typed; what it shows as configuration loads."""

import re
from collections.abc import Iterator

import pytest
import typer

import agent
from agent import config
from agent.cli.app import app
from agent.kinds import KINDS
from tests.docs.pages import ROOT, block, page, section, table

README = page("README.md")


def commands(group: typer.Typer, above: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command of the program with its options."""
    for name, command in typer.main.get_group(group).commands.items():
        options = {text for parameter in command.params for text in parameter.opts if text.startswith("--")}
        if hasattr(command, "commands"):
            for inner, below in command.commands.items():
                options = {text for parameter in below.params for text in parameter.opts if text.startswith("--")}
                yield f"{above}{name} {inner}", options
        else:
            yield f"{above}{name}", options


COMMANDS = dict(commands(app))
COMMON = {"--config", "--data-dir", "--json"}  # said once for all


def listed() -> dict[str, set[str]]:
    """Every command of the README's table with the options that stand beside it."""
    found = {}
    for cell, _ in table(section(README, "Command line")):
        name = re.match(r"`metering-agent ([a-z-]+(?: [a-z][a-z-]*)?)", cell)
        assert name, cell
        found[name[1]] = set(re.findall(r"--[a-z-]+", cell))
    return found


def test_the_readme_lists_every_command_and_no_other() -> None:
    """A command that nobody finds is no command."""
    assert listed().keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_lists_every_option_of_a_command(name: str) -> None:
    """The options of its own, beside those that are said once for all."""
    assert listed()[name] == COMMANDS[name] - COMMON


def test_those_that_take_a_data_directory_are_named() -> None:
    """The sentence under the table is as true as the table."""
    said = re.search(r"^(`explain`.*?) take `--data-dir DIR`", section(README, "Command line"), re.MULTILINE)
    assert said
    assert set(re.findall(r"`([a-z -]+)`", said[1])) == {
        n for n, options in COMMANDS.items() if "--data-dir" in options
    }


def test_every_command_that_a_page_mentions_exists() -> None:
    """So that nobody is told to type what is not there."""
    known = COMMANDS.keys() | {name.split()[0] for name in COMMANDS}
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("packaging/*"), *ROOT.glob("config/*")]
    pages += ROOT.glob("helm/*/README.md")
    for path in pages:
        for mention in re.findall(r"`metering-agent ([a-z][a-z-]*(?: [a-z][a-z-]*)?)", path.read_text()):
            assert mention in known or mention.split()[0] in COMMANDS, f"{path.name}: {mention}"


def test_every_make_target_that_a_page_mentions_exists() -> None:
    """The two commands of a fresh clone above all."""
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), re.MULTILINE))
    first = block(section(README, "60 seconds"), "sh").splitlines()
    assert [line.split("#")[0].strip() for line in first] == ["make run", "make test"]
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for mention in re.findall(r"`make ([a-z -]+)`", path.read_text()):
            assert set(mention.split()) <= targets, f"{path.name}: make {mention}"


def test_the_line_is_drawn_as_the_package_draws_it() -> None:
    """One picture, in two places."""
    assert agent.__doc__
    drawn = [line.strip() for line in agent.__doc__.splitlines() if "──" in line]
    shown = [line.strip() for line in block(section(README, "The line"), "text").splitlines() if "──" in line]
    assert shown == drawn


def test_the_configuration_in_the_readme_is_sound() -> None:
    """Somebody will copy it."""
    loaded = config.parse(block(section(README, "Configuration"), "yaml"), "README.md", KINDS, {}, now=0)
    assert loaded.sinks


@pytest.mark.parametrize("name", ["agent.yaml", "minimal.yaml"])
def test_the_examples_name_meters_that_this_release_measures(name: str) -> None:
    """`check` as a user would run it."""
    assert config.load(ROOT / "config" / name, KINDS, {}).sources


def test_every_metric_that_a_page_mentions_exists() -> None:
    """As for commands."""
    from agent.telemetry import METRICS

    known = {metric.name for metric in METRICS}
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("helm/*/README.md")]:
        for mention in re.findall(r"\bmetering_[a-z_]+[a-z]\b", path.read_text()):
            assert mention in known or any(name.startswith(f"{mention}_") for name in known), f"{path.name}: {mention}"


def test_the_readme_keeps_its_order() -> None:
    """What it is, what it is not, a first run; then how it works; then how to live with it."""
    assert re.findall(r"^## (.+)$", README, re.MULTILINE) == [
        "What it does not do",
        "60 seconds",
        "The line",
        "Configuration",
        "Paigo",
        "What happens when …",
        "Metrics and alerts",
        "systemd",
        "Kubernetes",
        "Command line",
        "Proof",
        "Measured",
        "Develop",
        "Versioning",
    ]


def test_the_newest_version_in_the_changelog_is_this_one() -> None:
    """A release is described before it is made."""
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", page("CHANGELOG.md"), re.MULTILINE)
    assert versions[0][0] == agent.__version__
    dates = [date for _, date in versions]
    assert dates == sorted(dates, reverse=True)
