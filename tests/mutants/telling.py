"""Bugs in what people are told of pods."""

from tests.mutants import Mutant

MUTANTS = (
    Mutant(
        "nobody hears how asking the API server goes",
        "alerts",
        "tests/test_sweeps.py",
        "agent/sweeps.py",
        "                self._tell(wanted)\n",
        "",
    ),
    Mutant(
        "a name is a pod",
        "L12",
        "tests/cli/test_explain_pod.py",
        "agent/cli/pod.py",
        "return self.found.setdefault(uid, _Making(uid))",
        "return self.found.setdefault(self._name or uid, _Making(uid))",
    ),
    Mutant(
        "what waited is not found by the name that came later",
        "L12",
        "tests/cli/test_explain_pod.py",
        "agent/cli/pod.py",
        "            self._uids.add(uid)\n            self.words.add(_word(uid))\n",
        "            self._uids.add(uid)\n",
    ),
    Mutant(
        "what was given away is told as if it were still there",
        "L12",
        "tests/cli/test_explain_pod.py",
        "agent/cli/pod.py",
        "        made.quantity += quantity\n",
        "        made.quantity += max(0, quantity)\n",
    ),
    Mutant(
        "a pod that is gone is shown as living",
        "top",
        "tests/cli/test_top_pods.py",
        "agent/cli/pods.py",
        "            if not marks:",
        "            if False:",
    ),
    Mutant(
        "a refused claim is not told",
        "L11",
        "tests/cli/test_simulate.py",
        "agent/attribution.py",
        "self._eras[era][1]) if rank is None]",
        "self._eras[era][1]) if rank is not None]",
    ),
    Mutant(
        "half a cluster is judged as if it were whole",
        "simulate",
        "tests/cli/test_simulate.py",
        "agent/cli/simulate.py",
        "    if problems:\n        raise ConfigError(problems)\n\n\ndef tell(",
        "\n\ndef tell(",
    ),
    Mutant(
        "once does not learn who its pods are",
        "waiting",
        "tests/cli/test_once_pods.py",
        "agent/cli/once.py",
        "if isinstance(source, Followed)]",
        "if False]",
    ),
    Mutant(
        "doctor takes a refusal for a right",
        "doctor",
        "tests/cli/test_health_pods.py",
        "agent/cli/health/pods.py",
        "return judged(area, what, need, refused is None,",
        "return judged(area, what, need, True,",
    ),
)
