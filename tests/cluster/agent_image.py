"""The agent's image without Docker: what its Dockerfile makes, with Debian's Python in place of a base image.

Three layers: Python and what it links, the locked packages, the agent. Only the last is made anew as the agent changes.
There is no shell and no package manager in it: at run time nothing but Python and the agent is needed.
"""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import agent
from tests.cluster import images
from tests.cluster.images import Layer, archive, layer
from tests.kept import call, kept
from tests.real.nspawn import rootfs

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).read_text() + images.SOURCE
NAME = f"metering-agent:{agent.__version__}"
HOME = "/opt/metering-agent"
PROGRAM = f"{HOME}/bin/metering-agent"
PYTHON = "/usr/bin/python3.11"
PACKAGES = ("python3.11", "base-files", "netbase")  # of Debian, with what they depend on
NOT_NEEDED = {"dpkg", "debconf", "perl-base", "mawk", "readline-common", "media-types"}  # for installing, or for people
LEFT_OUT = re.compile(
    r"/(usr/share/(doc|man|locale|lintian|bug|menu|base-files|common-licenses|info)|etc/init\.d|etc/cron)"
)
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"
LAUNCH = f"""\
#!{HOME}/bin/python
import sys
from agent.__main__ import main
sys.exit(main())
"""


def image() -> Path:
    """The docker-archive of this tree's agent, called NAME."""
    sources = [ROOT / "pyproject.toml", *sorted((ROOT / "agent").rglob("*"))]
    digest = hashlib.sha256()
    for source in sources:
        if source.is_file() and "__pycache__" not in source.parts:
            digest.update(f"{source.relative_to(ROOT)}\0".encode() + source.read_bytes())
    base, packages = _base(), _packages()

    def make(target: Path) -> None:
        root = _assembled(target, base, packages)
        site = root / _site(root)
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
        call(*pip, "--no-deps", "--no-build-isolation", "--no-compile", "--target", str(target / "agent"), str(ROOT))
        shutil.rmtree(target / "agent/bin")
        own = [site / path.name for path in (target / "agent").iterdir()]
        for path in own:
            shutil.move(target / "agent" / path.name, path)
        program = root / PROGRAM.lstrip("/")
        program.write_text(LAUNCH)
        program.chmod(0o755)
        _compile(root, *own)
        made = layer(root, target / "agent.layer", only=[*own, program])
        archive(
            NAME, [base, packages, made], target / "image.tar", entrypoint=[PROGRAM], command=["run"],
            environment={"PATH": f"{HOME}/bin:/usr/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        made.path.unlink()
        shutil.rmtree(root)
        shutil.rmtree(target / "agent")

    return kept("agent-image", f"{SOURCES} {base} {packages} {digest.hexdigest()}", make) / "image.tar"


def _base() -> Layer:
    """Debian's Python with what it links, the authorities' certificates, and nothing to install or log in with."""
    debian = rootfs()

    def make(target: Path) -> None:
        root = target / "root"
        for link in ("bin", "lib", "lib64", "sbin"):
            (root / "usr" / link).mkdir(parents=True)
            (root / link).symlink_to(f"usr/{link}")
        for name in _files(debian, PACKAGES):
            _copy(debian / name, root / name)
        for name in (AUTHORITIES, "etc/passwd", "etc/group", "etc/nsswitch.conf"):
            if (debian / name).exists():
                _copy(debian / name, root / name)
        _compile(root, root / "usr/lib/python3.11")
        layer(root, target / "layer")
        shutil.rmtree(root)

    return Layer(kept("agent-base", f"{SOURCES} {debian}", make) / "layer")


def _packages() -> Layer:
    """A virtual environment with what requirements.lock names."""
    base, lock = _base(), ROOT / "requirements.lock"

    def make(target: Path) -> None:
        root = _assembled(target, base)
        call("chroot", str(root), PYTHON, "-m", "venv", "--without-pip", HOME)
        site = root / _site(root)
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
        options = ("--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile", "--python-version=3.11")
        call(*pip, *options, "--target", str(site), "-r", str(lock))
        shutil.rmtree(site / "bin", ignore_errors=True)  # programs of packages: for people
        for activate in (root / HOME.lstrip("/") / "bin").glob("[aA]ctivate*"):
            activate.unlink()
        _compile(root, site)
        layer(root, target / "layer", only=[root / HOME.lstrip("/")])
        shutil.rmtree(root)

    return Layer(kept("agent-packages", f"{SOURCES} {base} {lock.read_text()}", make) / "layer")


def _assembled(target: Path, *layers: Layer) -> Path:
    """The files of some layers in target/root."""
    root = target / "root"
    root.mkdir(parents=True)
    for each in layers:
        call("tar", "-xf", str(each.path), "-C", str(root))
    return root


def _site(root: Path) -> str:
    return str(next(root.glob(f"{HOME.lstrip('/')}/lib/python3.*/site-packages")).relative_to(root))


def _compile(root: Path, *paths: Path) -> None:
    """Make bytecode that is taken as it is: in the image, files have no times, and nothing can be written."""
    inside = [f"/{path.relative_to(root)}" for path in paths]
    options = ("-q", "--invalidation-mode=unchecked-hash")
    call("chroot", str(root), PYTHON, "-m", "compileall", *options, *inside)


def _files(debian: Path, names: Iterable[str]) -> list[str]:
    """What the packages and those they depend on have installed, relative to the root; without documentation."""
    status = (debian / "var/lib/dpkg/status").read_text()
    needs: dict[str, list[str]] = {}
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", paragraph, re.MULTILINE))
        wanted = ", ".join(fields.get(field, "") for field in ("Pre-Depends", "Depends"))
        needs[fields.get("Package", "")] = re.findall(r"(?:^|, *)([a-z0-9][a-z0-9.+-]*)", wanted)
    closure, waiting = set[str](), [*names]
    while waiting:
        name = waiting.pop()
        if name not in closure | NOT_NEEDED and name in needs:
            closure.add(name)
            waiting += needs[name]
    lists = [
        path
        for name in closure
        for path in (debian / "var/lib/dpkg/info").glob(f"{name}*.list")
        if path.stem.partition(":")[0] == name
    ]
    lines = {line for path in lists for line in path.read_text().splitlines()}
    return sorted(line.lstrip("/") for line in lines if not LEFT_OUT.match(line) and line != "/.")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(source.stat().st_mode & 0o7777)
    elif not os.path.lexists(target) and os.path.lexists(source):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
