"""Images made without Docker: one layer and its description in a docker-archive, as `ctr images import` reads it."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.components import PAUSE
from tests.cluster.programs import path
from tests.kept import call, kept

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
        archive(TOOLS, root, target / "tools.tar", command=["/bin/sh"])
        only = target / "only"
        only.mkdir()
        shutil.copy(root / "bin/pause", only / "pause")
        archive(PAUSE, only, target / "pause.tar", entrypoint=["/pause"])
        shutil.rmtree(root)
        shutil.rmtree(only)

    made = kept("cluster-images", f"{PAUSE} {TOOLS} {PAUSE_C} {BURN_C} {USERS} {path('busybox').stat().st_size}", make)
    return [made / "pause.tar", made / "tools.tar"]


def archive(
    name: str, root: Path, out: Path, *, entrypoint: Sequence[str] = (), command: Sequence[str] = (), user: str = "0"
) -> None:
    """Write `out`: the image `name` with the files of `root`. The same files give the same bytes at any time."""
    layer = out.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        tar.add(root, arcname=".", filter=_timeless)
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    runs = {"Env": environment, "Entrypoint": [*entrypoint], "Cmd": [*command], "WorkingDir": "/", "User": user}
    image = {"architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z", "config": runs}
    config = json.dumps(image | {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}).encode()
    called = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": called, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(out, "w") as tar:
        for member, data in ((called, config), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        tar.add(layer, arcname="layer.tar", filter=_timeless)
    layer.unlink()


def _timeless(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = 0
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
