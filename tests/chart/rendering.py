"""The chart as Helm renders it: by Helm's own code (helm-python-sdk), so schema and `fail` are Helm's, too.

Every document is read strictly: a key that stands twice, which YAML readers let pass, is an error.
"""

import copy
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "tokenext-chain"
Object = dict[str, Any]


class Refused(ValueError):  # noqa: N818  # it is what happened, as in `pytest.raises(Refused)`
    """The chart does not render with these values; the message is Helm's."""


class DuplicateKeyError(ValueError):
    """A mapping of a rendered document has a key twice."""


class _StrictLoader(yaml.CSafeLoader):
    pass


def _mapping(loader: yaml.CSafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise DuplicateKeyError(f"{key!r} stands twice{node.start_mark}")
    return {
        key: loader.construct_object(value, deep=True)
        for key, (_, value) in zip(keys, node.value, strict=True)
    }


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


@dataclass(frozen=True)
class Rendered:
    """`objects` in the order of their files; `notes` is what `helm install` prints."""

    objects: Sequence[Object]
    notes: str

    def of(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object:
        """The only object of a kind, or the only one whose name ends so."""
        found = [each for each in self.of(kind) if name is None or each["metadata"]["name"].endswith(name)]
        assert len(found) == 1, f"{kind} {name}: {[each['metadata']['name'] for each in found]}"
        return found[0]

    @property
    def picks(self) -> bool:
        """Whether a picker is part of it; without one it is tokenext alone."""
        return any(name == "epp" for name, _ in pods(self.objects))

    def config(self, component: str, file: str) -> str:
        return self.one("ConfigMap", f"-{component}")["data"][file]


def pods(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """Component and pod template of every workload that the chart makes itself."""
    for each in objects:
        if each["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            template = each["spec"]["template"]
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template


@functools.cache
def _loaded(folder: Path) -> helm_python.Chart:
    return helm_python.Chart.load(folder)


def render(
    values: Mapping[str, Any] | None = None, *, chart: Path = CHART, name: str = "rel", upgrade: bool = False
) -> Rendered:
    """As `helm template`, or as an upgrade of that release. Raises Refused."""
    release = _rendered(json.dumps(values or {}), chart, name, upgrade)
    return Rendered(copy.deepcopy(release.objects), release.notes)


@functools.cache  # several tests ask for the same release
def _rendered(values: str, chart: Path, name: str, upgrade: bool) -> Rendered:
    try:
        files = _loaded(chart).render(
            json.loads(values), name=name, namespace="ns", is_install=not upgrade, is_upgrade=upgrade
        )
    except (helm_python.HelmRenderError, helm_python.HelmValuesError) as error:
        raise Refused(str(error)) from None
    notes = ""
    objects: list[Object] = []
    for path, text in sorted(files.items()):
        if path.endswith("NOTES.txt"):
            notes = text
            continue
        try:
            objects += [each for each in yaml.load_all(text, _StrictLoader) if each]
        except (yaml.YAMLError, DuplicateKeyError) as error:
            raise AssertionError(f"{path}: {error}\n{text}") from error
    return Rendered(objects, notes)
