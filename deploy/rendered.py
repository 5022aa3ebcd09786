"""What deploy/check asks of rendered manifests.

    rendered.py valid VERSION FILE...     each object has only fields of the Kubernetes API of that version
    rendered.py same KUSTOMIZE CHART      the same objects, but for the labels that only Helm gives
    rendered.py spec KIND FILE            the spec of the only object of a kind
    rendered.py has FILE PATH VALUE       the only object of KIND has a value: PATH is KIND.field.0.field
"""

import sys

import kubernetes_validate
import yaml

# The operator's types are not in the API's schema: what the manifests use of them, from its API reference.
OPERATOR = {
    "PodMonitor": {
        "selector": {"matchLabels": None},
        "podMetricsEndpoints": [{"port": str, "interval": str, "relabelings": [{"sourceLabels": list, "targetLabel": str}]}],
    },
    "PrometheusRule": {
        "groups": [{"name": str, "interval": str, "rules": [
            {"alert": str, "expr": str, "for": str, "labels": None, "annotations": None}]}],
    },
}
# Labels of Helm's, and those by which it selects.
HELM = ("helm.sh/", "app.kubernetes.io/")


def documents(path):
    with open(path, encoding="utf-8") as file:
        return [one for one in yaml.safe_load_all(file) if one]


def name(one):
    return f"{one['kind']} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}"


def known(path, value, shape):
    if shape is None:
        return
    if isinstance(shape, type):
        if not isinstance(value, shape):
            sys.exit(f"{path} is {value!r}")
    elif isinstance(shape, list):
        for at, item in enumerate(value):
            known(f"{path}[{at}]", item, shape[0])
    else:
        for field, inside in value.items():
            if field not in shape:
                sys.exit(f"{path}.{field} is no field of it")
            known(f"{path}.{field}", inside, shape[field])


def valid(version, *paths):
    count = 0
    for path in paths:
        objects = documents(path)
        if not objects:
            sys.exit(f"{path}: nothing in it")
        for one in objects:
            if one["apiVersion"].startswith("monitoring.coreos.com/"):
                known(name(one), one["spec"], OPERATOR[one["kind"]])
                if set(one) != {"apiVersion", "kind", "metadata", "spec"}:
                    sys.exit(f"{path}: {name(one)} has other fields: {sorted(one)}")
            else:
                try:
                    kubernetes_validate.validate(one, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    sys.exit(f"{path}: {name(one)}: {'.'.join(map(str, error.path))}: {error.message}")
            count += 1
    print(f"Kubernetes {version}: {count} objects, each field is one of the API")


def without_helm(value):
    if isinstance(value, dict):
        return {key: without_helm(inside) for key, inside in value.items() if not key.startswith(HELM)}
    if isinstance(value, list):
        return [without_helm(one) for one in value]
    return value


def comparable(path):
    objects = {}
    for one in documents(path):
        if "helm.sh/hook" in one["metadata"].get("annotations", {}):
            continue
        one = without_helm(one)
        if one["kind"] == "DaemonSet":
            del one["spec"]["selector"]
        if one["kind"] == "ConfigMap":
            one["data"] = {key: yaml.safe_load(text) for key, text in one["data"].items()}
        objects[name(one)] = one
    return objects


def same(kustomize, chart):
    kustomize, chart = comparable(kustomize), comparable(chart)
    if kustomize.keys() != chart.keys():
        sys.exit(f"other objects: {sorted(kustomize)} and {sorted(chart)}")
    for key, one in kustomize.items():
        if one != chart[key]:
            sys.exit(f"{key}: kustomize:\n{yaml.dump(one)}\nchart:\n{yaml.dump(chart[key])}")
    print(f"the chart renders the same {len(chart)} objects as kustomize")


def only(path, kind):
    found = [one for one in documents(path) if one["kind"] == kind]
    if len(found) != 1:
        sys.exit(f"{path}: {len(found)} of {kind}")
    return found[0]


def spec(kind, path):
    print(yaml.dump(only(path, kind)["spec"]))


def has(path, where, wanted):
    kind, *fields = where.split(".")
    value = only(path, kind)
    for field in fields:
        value = value[int(field) if field.isdigit() else field.replace("~", ".")]
    if value != yaml.safe_load(wanted):
        sys.exit(f"{path}: {where} is {value!r}, not {wanted}")


{"valid": valid, "same": same, "spec": spec, "has": has}[sys.argv[1]](*sys.argv[2:])
