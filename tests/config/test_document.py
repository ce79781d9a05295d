"""Reading YAML: what is refused before any section is looked at, and where each value stands."""

import time
from pathlib import Path

import pytest

from agent.config import load as load_file
from agent.config.document import parse, read
from agent.errors import ConfigError

from .written import KNOWN, problems, text


def refused(written: str) -> list[str]:
    """The problems that stop the reading."""
    with pytest.raises(ConfigError) as raised:
        parse(written, "agent.yaml")
    return raised.value.problems


def noted(written: str) -> list[str]:
    """The problems that do not stop it."""
    return [problem.shown("agent.yaml") for problem in parse(written, "agent.yaml").problems]


def test_every_value_knows_its_line() -> None:
    """The line is the key's; what was not written stands where its surroundings do."""
    document = parse("a:\n  b:\n    - x\n    - y: 1\n", "agent.yaml")
    assert document.values == {"a": {"b": ["x", {"y": 1}]}}
    assert document.line(("a",)) == 1
    assert document.line(("a", "b", 1, "y")) == 4
    assert document.line(("a", "b", 1, "missing", 7)) == 4
    assert document.line(("nothing",)) == 1


def test_text_is_not_turned_into_something_else() -> None:
    """The surprises of YAML 1.1 stay what was written: a customer `no`, a time, an octal number, a fraction."""
    document = parse("[off, no, 010, 0x10, 1.5, 2026-01-01, 1:30, '42', .inf, 12, -3, true, null, ~]", "agent.yaml")
    expected = ["off", "no", "010", "0x10", "1.5", "2026-01-01", "1:30", "42", ".inf", 12, -3, True, None, None]
    assert document.values == expected


def test_an_integer_too_long_to_mean_anything_stays_text() -> None:
    """A million digits cost nothing and raise nothing."""
    assert parse("9" * 100_000, "agent.yaml").values == "9" * 100_000


def test_a_key_is_text_whatever_it_looks_like() -> None:
    """`1:` and `true:` are keys named so."""
    assert parse("{1: a, true: b}", "agent.yaml").values == {"1": "a", "true": "b"}


def test_a_duplicate_key_names_both_lines() -> None:
    """The second would silently win in most readers."""
    assert noted("a: 1\nb: 2\na: 3\n") == ["agent.yaml:3: a: written twice, first on line 1. Keep one."]


def test_an_unhashable_key_is_refused() -> None:
    """A mapping or a list in the place of a key."""
    expected = "a key that is not text. Write `key: value`; quote what begins with [, { or *."
    assert noted("a:\n  ? [x, y]\n  : 1\n") == [f"agent.yaml:2: a: {expected}"]
    assert noted("? {x: y}\n: 1\n") == [f"agent.yaml:1: {expected}"]


def test_a_merge_key_is_refused() -> None:
    """Who wins in a merge is not to be guessed in a file about money."""
    assert noted("a: &a {x: 1}\nb:\n  <<: *a\n") == [
        "agent.yaml:3: b: merge keys (<<) are not read. Write the keys out."
    ]


def test_a_tag_is_refused() -> None:
    """No object is ever made from the file."""
    assert noted("a: !!python/object/apply:os.system [ls]\n") == [
        (
            "agent.yaml:1: a: the tag tag:yaml.org,2002:python/object/apply:os.system is not read. "
            "Remove it; quote the value if it is text."
        )
    ]


def test_a_control_character_is_refused() -> None:
    """A line break in a path or a name ends up in a log or a file name."""
    expected = "agent.yaml:1: a: a line break or another control character. Write it on one line."
    assert noted('a: "x\\ny"') == [expected]
    assert noted('a: "x\\0y"') == [expected]
    assert noted("a: |\n  x\n  y\n") == [expected]


def test_a_syntax_error_gives_line_and_column() -> None:
    """An editor can jump there."""
    assert refused("a: [1, 2\nb: 3\n") == [
        (
            "agent.yaml:2: column 2: not YAML: did not find expected ',' or ']'. "
            "Check the indentation, quotes and colons here."
        )
    ]


def test_a_tab_is_named() -> None:
    """The commonest error that cannot be seen."""
    assert refused("a:\n\tb: 1\n") == ["agent.yaml:2: column 1: a tab. Indent with spaces."]


def test_an_unprintable_character_gives_its_line() -> None:
    """As a stray byte of a broken copy."""
    assert refused("a: 1\nb: \x01\n") == [
        "agent.yaml:2: not YAML: control characters are not allowed. Remove the character."
    ]


def test_half_a_character_is_refused() -> None:
    """A lone surrogate cannot be written to any file or log."""
    assert refused("a: 1\nb: \ud800\n") == ["agent.yaml:2: half of a character. Save the file as UTF-8."]


def test_a_second_document_is_refused() -> None:
    """It would be ignored in silence."""
    assert refused("a: 1\n---\nb: 2\n") == ["agent.yaml:2: a second document. Keep one."]


def test_an_alias_repeats_a_value_and_keeps_its_lines() -> None:
    """Aliases are of use in long lists."""
    document = parse("a: &a\n  x: 1\nb: *a\n", "agent.yaml")
    assert document.values == {"a": {"x": 1}, "b": {"x": 1}}
    assert document.line(("b",)) == 3
    assert document.line(("b", "x")) == 2


def test_an_alias_bomb_is_refused_at_once() -> None:
    """Nine levels of nine would be 387 million values."""
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))
    begin = time.monotonic()
    assert refused(bomb) == ["agent.yaml:3: a2[4]: more than 50 aliases, expanded. Write the values out."]
    assert time.monotonic() - begin < 1


def test_an_alias_to_itself_is_refused() -> None:
    """A value without an end."""
    assert refused("a: &a [*a]\n") == ["agent.yaml:1: a[0]: *a repeats what is not complete yet. Define &a before it."]


def test_aliases_count_towards_depth_and_size() -> None:
    """What they repeat is as deep and as large as if it were written."""
    nested = "a: &a " + "[" * 12 + "]" * 12 + "\nb: " + "[" * 10 + "*a" + "]" * 10
    assert refused(nested) == ["agent.yaml:2: nested deeper than 20 levels. No key of this file needs that."]
    large = f"a: &a [{'x,' * 30_000}]\nb: [*a, *a, *a, *a, *a, *a, *a]"
    assert refused(large) == ["agent.yaml:2: more than 200000 values. Keep only the configuration in it."]


def test_deep_nesting_is_refused() -> None:
    """Long before any recursion could hurt."""
    assert refused("[" * 100_000) == ["agent.yaml:1: nested deeper than 20 levels. No key of this file needs that."]


def test_many_values_are_refused() -> None:
    """A file within 1 MiB can still hold half a million values."""
    assert refused(f"[{'x,' * 300_000}]") == [
        "agent.yaml:1: more than 200000 values. Keep only the configuration in it."
    ]


def test_ten_mebibytes_are_refused_unread(tmp_path: Path) -> None:
    """The file is not even read to its end, let alone parsed."""
    path = tmp_path / "agent.yaml"
    path.write_bytes(b"a: [" + b"x," * (5 << 20))
    begin = time.monotonic()
    with pytest.raises(ConfigError) as raised:
        read(path)
    assert raised.value.problems == [f"{path}: larger than 1 MiB. Keep only the configuration in it."]
    assert time.monotonic() - begin < 1
    assert refused("x" * (10 << 20)) == ["agent.yaml: larger than 1 MiB. Keep only the configuration in it."]


def test_a_file_that_is_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    """As saved by an editor in Latin-1."""
    path = tmp_path / "agent.yaml"
    path.write_bytes(b"a: 1\nname: Caf\xe9\n")
    with pytest.raises(ConfigError) as raised:
        read(path)
    assert raised.value.problems == [f"{path}:2: byte 14 is not UTF-8. Save the file as UTF-8."]


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    """As saved by an editor on Windows."""
    path = tmp_path / "agent.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert parse(read(path), "agent.yaml").values == {"a": 1}


@pytest.mark.parametrize(("name", "reason"), [("absent", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, reason: str) -> None:
    """Absent, or not a file."""
    with pytest.raises(ConfigError) as raised:
        load_file(tmp_path / name, KNOWN, {})
    assert raised.value.problems == [f"{tmp_path / name}: cannot be read: {reason}. Name a readable file."]


@pytest.mark.parametrize(
    ("written", "found"), [("", "empty"), ("# nothing\n", "empty"), ("- a\n", "a list"), ("text\n", "text")]
)
def test_a_root_that_is_no_mapping_is_refused(written: str, found: str) -> None:
    """There are no sections in it."""
    assert problems(written) == [
        f"agent.yaml:1: {found}. Write a mapping of the sections sources, meters, customers and so on."
    ]


def test_problems_of_reading_and_of_meaning_come_together_in_the_order_of_the_file() -> None:
    """Nobody mends a file one error at a time."""
    assert problems(text(agent="agent: {window: 5m, window: 1m}", spool="spool: {max_byte: 1GiB}\nspol: {}")) == [
        "agent.yaml:4: agent.window: written twice, first on line 4. Keep one.",
        "agent.yaml:5: spool.max_byte: unknown key. Did you mean max_bytes?",
        "agent.yaml:6: spol: unknown key. Did you mean spool?",
    ]
