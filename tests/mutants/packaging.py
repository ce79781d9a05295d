"""Bugs of the chart: what it asks for, and who may say who pays."""

from tests.chart.programs import found
from tests.mutants import Mutant

NEAR = "tests/chart/"
PROGRAMS = ("helm", "helm3", "kubectl", "etcd", "kube-apiserver")  # what its tests need
_TEMPLATES = "helm/metering-agent/templates/"

_KNOWN = (
    Mutant(
        "the kubelet's proxy is granted",
        "L11",
        "tests/chart/test_privileges.py",
        f"{_TEMPLATES}rbac.yaml",
        "resources: [nodes/stats]",
        "resources: [nodes/stats, nodes/proxy]",
    ),
    Mutant(
        "statistics of nodes granted to all",
        "L11",
        "tests/chart/test_privileges.py",
        f"{_TEMPLATES}rbac.yaml",
        '{{- if include "metering-agent.asks-kubelet" . }}',
        "{{- if true }}",
    ),
    Mutant(
        "capabilities kept",
        "L11",
        "tests/chart/test_privileges.py",
        f"{_TEMPLATES}daemonset.yaml",
        "drop: [ALL]",
        "drop: [NET_RAW]",
    ),
    Mutant(
        "what is mounted below a host path stays writable",
        "L11",
        "tests/chart/test_privileges.py",
        f"{_TEMPLATES}daemonset.yaml",
        "              recursiveReadOnly: {{ $.Values.recursiveReadOnly }}\n",
        "",
    ),
    Mutant(
        "the spool dies with the pod",
        "L8",
        "tests/chart/test_objects.py",
        f"{_TEMPLATES}daemonset.yaml",
        "hostPath: {path: {{ $agent.data_dir }}, type: {{ $type }}}",
        "emptyDir: {}",
    ),
    Mutant(
        "two agents on a node during an update",
        "L2",
        "tests/chart/test_objects.py",
        f"{_TEMPLATES}daemonset.yaml",
        "maxSurge: 0",
        "maxSurge: 1",
    ),
    Mutant(
        "killed before the flush is over",
        "delivery",
        "tests/chart/test_configuration.py",
        f"{_TEMPLATES}daemonset.yaml",
        '{{ add (include "metering-agent.budget" .) 20 }}',
        "30",
    ),
    Mutant(
        "every change of the configuration restarts every agent",
        "reload",
        "tests/chart/test_configuration.py",
        f"{_TEMPLATES}daemonset.yaml",
        'include "metering-agent.restart-only" . | sha256sum',
        "toJson .Values.config | sha256sum",
    ),
    Mutant(
        "a change that needs a restart never gets one",
        "reload",
        "tests/chart/test_configuration.py",
        f"{_TEMPLATES}_config.tpl",
        ' "run_dir" "sample_interval" }}',
        ' "run_dir" }}',
    ),
    Mutant(
        "templates are not guarded",
        "L11",
        "tests/chart/test_admission.py",
        f"{_TEMPLATES}admissionpolicy.yaml",
        '"daemonsets" "deployments" "replicasets" "statefulsets"',
        '"daemonsets" "replicasets" "statefulsets"',
    ),
    Mutant(
        "a tenant may take a billing label away",
        "L11",
        "tests/chart/test_admission.py",
        f"{_TEMPLATES}admissionpolicy.yaml",
        ": key in variables.{{ . }}Before)",
        ": false)",
    ),
    Mutant(
        "a status or a binding is a way round",
        "L11",
        "tests/chart/test_admission.py",
        f"{_TEMPLATES}admissionpolicy.yaml",
        '"pods" "pods/*" "bindings"',
        '"pods"',
    ),
    Mutant(
        "controllers cannot make the platform's own pods",
        "L11",
        "tests/chart/test_admission.py",
        f"{_TEMPLATES}admissionpolicy.yaml",
        "!(request.userInfo.username in {{ toJson $policy.controllers }})",
        "true",
    ),
    Mutant(
        "labels that customers are selected by are not guarded",
        "L11",
        "tests/chart/test_values.py",
        f"{_TEMPLATES}_config.tpl",
        '(regexFind "[^\\\\s!=]+" .)',
        '""',
    ),
)
MUTANTS = _KNOWN if all(map(found, PROGRAMS)) else ()  # CI has all of them: tests/chart says so there
