"""What the tests of the documentation share: pages, their tables, and what is tracked."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    """The text of one page, by its path in the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What stands under one heading, up to the next of the same or a higher level."""
    level, fenced = 0, False
    found = []
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#+) (.+)$", line)
        if heading and level and len(heading[1]) <= level:
            break
        if level:
            found.append(line)
        elif heading and heading[2] == title:
            level = len(heading[1])
    assert level, f"no section {title}"
    return "".join(found)


def table(text: str) -> list[list[str]]:
    """The cells of the first table, its head left out. An escaped bar is part of its cell."""
    lines = text[text.index("|---") :].splitlines()[1:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)\|", line.strip()[1:-1])
        rows.append([cell.strip().replace("\\|", "|") for cell in cells])
    return rows


def block(text: str, language: str) -> str:
    """The first fenced block in this language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"no block in {language}"
    return found[1]


def code(cell: str) -> str:
    """What stands between backticks in a cell that is nothing else."""
    assert cell.startswith("`"), cell
    assert cell.endswith("`"), cell
    return cell.strip("`")


def tracked() -> list[Path]:
    """Every file that is in the repository or would be added to it; of an unpacked archive, what is not hidden."""
    list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (ROOT / ".git").exists():
        done = subprocess.run(list_files, cwd=ROOT, capture_output=True, check=True)
        paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    else:
        hidden = re.compile(r"\.(?!ci$).|__pycache__$")
        found = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        paths = [ROOT / path for path in found if not any(hidden.match(part) for part in path.parts)]
    return [path for path in paths if path.is_file()]
