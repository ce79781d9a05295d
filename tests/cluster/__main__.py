"""`python -m tests.cluster VERB`: a cluster that stays up until it is told to go; its data is in .run/cluster."""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from tests.cluster import agent_image
from tests.cluster.addresses import NODE
from tests.cluster.cluster import Cluster, standing
from tests.cluster.components import COMPONENTS, MAX_PODS
from tests.cluster.images import workload
from tests.cluster.node import ROOT
from tests.cluster.programs import clients, missing, servers

VERBS = """\
  up [--max-pods N]    bring it up; what is up already stays
  down                 end it; nothing is left of it
  status               what runs, its CPU time and memory
  kubectl|helm|helm3 … as the administrator
  build                only make what is kept: the programs and the images
  image                the agent's image, as docker-archive in dist/
  exec COMMAND …       any command in the node: its processes, mounts, network and control groups
  start|stop|kill NAME one component of it
  load ARCHIVE …       an image, as docker-archive
"""


def main(argv: list[str]) -> int:
    """0 for done; what went wrong is raised."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", epilog=VERBS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", metavar="VERB")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    asked = parser.parse_args(argv)
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    cluster = standing()
    verb, rest = asked.verb, asked.rest
    if verb == "up":
        _up(cluster, int(rest[1]) if rest[:1] == ["--max-pods"] else MAX_PODS)
    elif verb == "down":
        cluster.down()
    elif verb == "status":
        _status(cluster)
    elif verb in ("kubectl", "helm", "helm3"):
        os.execvp("nsenter", cluster.client(verb, *rest))
    elif verb == "exec":
        os.execvp("nsenter", cluster.node.inside(*rest))
    elif verb in ("start", "stop", "kill"):
        getattr(cluster, verb)(rest[0])
    elif verb == "build":
        servers(), clients(), workload()
        agent_image.image()
    elif verb == "image":
        _image()
    elif verb == "load":
        for archive in rest:
            cluster.load((ROOT / archive).resolve())
    else:
        parser.error(f"no verb is called {verb}")
    return 0


def _up(cluster: Cluster, max_pods: int) -> None:
    began = time.monotonic()
    cluster.up(max_pods=max_pods)
    print(f"{time.monotonic() - began:7.1f} s  in all: {NODE} is up. `make cluster-down` ends it.")


def _image() -> None:
    name, version = agent_image.NAME.split(":")
    made = ROOT / f"dist/{name}-{version}.tar"
    made.parent.mkdir(exist_ok=True)
    shutil.copyfile(agent_image.image(), made)
    print(f"{made.relative_to(ROOT)} is {agent_image.NAME}")


def _status(cluster: Cluster) -> None:
    for name in COMPONENTS:
        pid = cluster.node.pid(name)
        if pid is None:
            print(f"{name:24} -")
            continue
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE") // 2**20
        print(f"{name:24} pid {pid:<8} {resident:4} MiB  CPU {cluster.cpu_ns(name) / 1e9:.1f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
