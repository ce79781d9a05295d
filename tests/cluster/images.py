"""Images made without Docker: one layer and its description in a docker-archive, as `ctr images import` reads it."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.components import PAUSE
from tests.cluster.programs import path
from tests.kept import call, kept

SOURCE = Path(__file__).read_text()  # part of every recipe: another way to make an image makes another image
TOOLS = "cluster.local/tools:1"  # busybox, `burn` and `pause`: what every workload runs

PAUSE_C = r"""
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void leave(int number) { _exit(0); }
static void reap(int number) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
    signal(SIGTERM, leave); signal(SIGINT, leave); signal(SIGCHLD, reap);
    for (;;) pause();
}
"""
# burn CPU_SECONDS [SLEEP_SECONDS [EXIT_CODE [MIB]]]: spends exactly so much CPU of its own, sleeps, and exits.
BURN_C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
static double used(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
int main(int n, char **argument) {
    double wanted = n > 1 ? atof(argument[1]) : 1;
    if (n > 4) {
        size_t bytes = (size_t)atoi(argument[4]) << 20;
        char *memory = malloc(bytes);
        if (memory) memset(memory, 1, bytes);
    }
    while (used() < wanted) for (volatile int i = 0; i < 100000; i++);
    printf("burn cpu=%.6f\n", used());
    fflush(stdout);
    if (n > 2) usleep((useconds_t)(atof(argument[2]) * 1e6));
    return n > 3 ? atoi(argument[3]) : 0;
}
"""
USERS = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"


def workload() -> list[Path]:
    """The archives of PAUSE and TOOLS."""

    def make(target: Path) -> None:
        root = target / "root"
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "var"):
            (root / name).mkdir(parents=True)
        for name, source in (("pause", PAUSE_C), ("burn", BURN_C)):
            (target / f"{name}.c").write_text(source)
            call("gcc", "-O1", "-static", "-s", "-o", str(root / "bin" / name), str(target / f"{name}.c"))
        shutil.copy(path("busybox"), root / "bin/busybox")
        for applet in call(str(path("busybox")), "--list").split():
            if not (root / "bin" / applet).exists():
                (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text(USERS)
        archive(TOOLS, [layer(root, target / "tools.layer")], target / "tools.tar", command=["/bin/sh"])
        only = target / "only"
        only.mkdir()
        shutil.copy(root / "bin/pause", only / "pause")
        archive(PAUSE, [layer(only, target / "pause.layer")], target / "pause.tar", entrypoint=["/pause"])
        shutil.rmtree(root)
        shutil.rmtree(only)

    made = kept("cluster-images", f"{SOURCE} {PAUSE} {path('busybox').stat().st_size}", make)
    return [made / "pause.tar", made / "tools.tar"]


@dataclass(frozen=True, slots=True)
class Layer:
    """A tar of files, as `layer` makes it."""

    path: Path

    @property
    def digest(self) -> str:
        """SHA-256 of its bytes."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def layer(root: Path, out: Path, *, only: Sequence[Path] | None = None) -> Layer:
    """Write the files below `root` to `out`, or of them `only` these. No file has a time or an owner."""
    with tarfile.open(out, "w") as tar:
        for path in sorted(only or [root]):
            tar.add(path, arcname=path.relative_to(root), filter=_timeless)
    return Layer(out)


def archive(
    name: str,
    layers: Sequence[Layer],
    out: Path,
    *,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Write `out`: the image `name`, whose programs run as root. The same files give the same bytes at any time."""
    wanted = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | dict(environment or {})
    runs = {
        "Env": [f"{key}={value}" for key, value in wanted.items()],
        "Entrypoint": [*entrypoint],
        "Cmd": [*command],
        "WorkingDir": "/",
        "User": "0",
    }
    image = {"architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z", "config": runs}
    digests = [f"sha256:{each.digest}" for each in layers]
    config = json.dumps(image | {"rootfs": {"type": "layers", "diff_ids": digests}}).encode()
    called = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": called, "RepoTags": [name], "Layers": names}]).encode()
    with tarfile.open(out, "w") as tar:
        for member, data in ((called, config), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for each, member in zip(layers, names, strict=True):
            tar.add(each.path, arcname=member, filter=_timeless)


def _timeless(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = 0
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
