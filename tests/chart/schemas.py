"""Whether an API server would take an object: core objects by Kubernetes' own schemas (kubernetes-validate),
custom ones by crds/*.yaml, which are trimmed to what the chart uses. Unknown fields are errors in both.
"""

import functools
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import referencing
import yaml
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

# The oldest that kubernetes-validate has, and the newest.
KUBERNETES = ("1.32.0", "1.37.0")
CRDS = Path(__file__).parent / "crds"


class InvalidObjectError(ValueError):
    """An API server would refuse this object."""


def check(document: dict[str, Any]) -> None:
    """Raises InvalidObjectError, naming object, path and problem."""
    _check(json.dumps(document))


@functools.cache  # most objects of one render are those of another
def _check(text: str) -> None:
    document = json.loads(text)
    for version in KUBERNETES:
        validator = _custom(document["apiVersion"], document["kind"]) or _core(
            document["apiVersion"], document["kind"], version
        )
        for error in validator.iter_errors(document):
            where = "/".join(str(each) for each in error.absolute_path)
            name = f"{document['kind']}/{document['metadata']['name']}"
            raise InvalidObjectError(f"{name} at {where} (Kubernetes {version}): {error.message}")


@functools.cache
def _core(api_version: str, kind: str, version: str) -> Validator:
    # As kubernetes-validate names its files; its own function reads all definitions anew for each object.
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    file = folder / f"{kind.lower()}-{group}.json"
    if not file.is_file():
        raise InvalidObjectError(
            f"{api_version} {kind} is neither of Kubernetes {version} nor in {CRDS.name}/"
        )
    schema = referencing.Resource.from_contents(json.loads(file.read_text()))
    return Draft202012Validator(schema.contents, registry=schema @ _definitions(version))


@functools.cache
def _definitions(version: str) -> referencing.Registry[Any]:
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text())
    registry: referencing.Registry[Any] = (
        referencing.Resource.from_contents(definitions) @ referencing.Registry()
    )
    return registry


@functools.cache
def _custom(api_version: str, kind: str) -> Validator | None:
    for file in sorted(CRDS.glob("*.yaml")):
        for crd in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if (crd["apiVersion"], crd["kind"]) == (api_version, kind):
                head = {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                }
                whole = {
                    "type": "object",
                    "properties": {**head, "spec": crd["spec"]},
                    "required": ["metadata", "spec"],
                }
                return Draft202012Validator(_closed(whole))
    return None


def _closed(schema: Any) -> Any:
    """A structural schema prunes fields that it does not know; here they are errors."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed["properties"] = {key: _closed(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    if isinstance(closed.get("properties"), dict) and "metadata" in closed["properties"]:
        closed["properties"]["metadata"] = {"type": "object"}
    return closed
