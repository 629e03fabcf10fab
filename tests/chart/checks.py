"""What holds of every render: each check takes a release and raises AssertionError with a sentence.

The unit tests ask them of a part of the matrix, `make chart` of all of it.
"""

import json
import re
from collections.abc import Callable, Mapping

from epp_adapter import settings as epp_settings
from epp_adapter.dynamo_settings import DynamoSettings
from epp_adapter.endpoint_picker_config import parse_picker_config
from tests.chart import schemas
from tests.chart.rendering import Rendered, pods
from tokenext import settings as tokenext_settings

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
# Names, metrics and commands of what is there only with a picker.
OF_A_CHAIN = re.compile(r"\bepp\b|epp[-_]adapter|llm_d_epp|-envoy\b|inferencepool", re.IGNORECASE)

Check = Callable[[Rendered], None]


def an_api_server_takes_every_object(release: Rendered) -> None:
    for document in release.objects:
        schemas.check(document)


def no_two_objects_have_one_name(release: Rendered) -> None:
    names = [
        (each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]) for each in release.objects
    ]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


def tokenext_loads_its_settings(release: Rendered) -> None:
    settings = tokenext_settings.decode(
        release.config("tokenext", "tokenext.yaml").encode(), source="tokenext.yaml"
    )
    sources = [each.source for each in settings.models]
    assert len(sources) == len(set(sources)), sources


def the_picker_loads_its_settings(release: Rendered) -> None:
    if not release.picks:
        return
    settings = epp_settings.parse_settings(release.config("epp", "epp.yaml").encode(), source="epp.yaml")
    pool = settings.endpoints.pool
    assert pool is not None
    for strategy in settings.strategies.values():
        if isinstance(strategy, DynamoSettings):
            assert pool.dynamo_workers, "Dynamo's router without worker ids"
    files = release.one("ConfigMap", "-epp")["data"]
    if "picker.yaml" in files:
        parse_picker_config(files["picker.yaml"].encode(), source="picker.yaml")


def both_agree_where_the_record_stands(release: Rendered) -> None:
    if not release.picks:
        return
    tokenext = tokenext_settings.decode(release.config("tokenext", "tokenext.yaml").encode(), source="")
    epp = epp_settings.parse_settings(release.config("epp", "epp.yaml").encode(), source="")
    assert tokenext.metadata_namespace == epp.metadata_namespace


def every_reference_is_met(release: Rendered) -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in release.objects}
    for component, template in pods(release.objects):
        spec = template["spec"]
        for volume in spec.get("volumes", ()):
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there, component
        account = spec.get("serviceAccountName", "default")
        assert account in ("default", "ml") or ("ServiceAccount", account) in there, component
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert mounted <= {each["name"] for each in spec.get("volumes", ())}, component
    for pool in release.of("InferencePool"):
        assert ("Service", pool["spec"]["endpointPickerRef"]["name"]) in there
    for binding in release.of("RoleBinding"):
        assert ("Role", binding["roleRef"]["name"]) in there
    for route in release.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                assert backend["kind"] == "InferencePool" or (backend["kind"], backend["name"]) in there


def every_service_finds_the_ports_it_names(release: Rendered) -> None:
    templates = [template for _, template in pods(release.objects)]
    for service in release.of("Service"):
        selector = service["spec"]["selector"]
        if "app.kubernetes.io/component" not in selector:
            continue  # the pool's: its pods may be the user's
        chosen = [each for each in templates if selector.items() <= each["metadata"]["labels"].items()]
        assert chosen, f"{service['metadata']['name']} selects nothing"
        named = {
            port["name"]
            for template in chosen
            for container in template["spec"]["containers"]
            for port in container.get("ports", ())
        }
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in named, f"{service['metadata']['name']} {port['targetPort']}"


def our_containers_are_unprivileged_with_a_read_only_root(release: Rendered) -> None:
    for component, template in pods(release.objects):
        if component == "worker":  # images of others, which write where they please
            continue
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"], component
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"], f"{component} {container['name']}"
            assert context["allowPrivilegeEscalation"] is False, f"{component} {container['name']}"
            assert context["capabilities"] == {"drop": ["ALL"]}, f"{component} {container['name']}"


def who_asks_for_a_token_has_it_mounted_and_monitors_bring_it(release: Rendered) -> None:
    configs = {"tokenext": "tokenext.yaml"} | ({"epp": "epp.yaml"} if release.picks else {})
    asked = {name: "admin_token_file" in release.config(name, file) for name, file in configs.items()}
    assert len(set(asked.values())) == 1, asked
    for _, template in pods(release.objects):
        for container in template["spec"]["containers"]:
            mounted = [each["name"] for each in container.get("volumeMounts", ())].count("admin-token")
            assert mounted == (asked["tokenext"] and container["name"] in configs), container["name"]
    secrets = {
        (volume["secret"]["secretName"], volume["secret"]["items"][0]["key"])
        for _, template in pods(release.objects)
        for volume in template["spec"].get("volumes", ())
        if volume["name"] == "admin-token"
    }
    for monitor in release.of("ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            brought = endpoint.get("authorization", {}).get("credentials")
            ours = endpoint["path"] == "/metrics"
            assert ({(brought["name"], brought["key"])} if brought else set()) == (secrets if ours else set())


def without_a_picker_there_is_tokenext_and_no_word_of_others(release: Rendered) -> None:
    """Also none in its alerts, its dashboard and its policies; and something serves HTTP."""
    if release.picks:
        return
    components = {each["metadata"]["labels"]["app.kubernetes.io/component"] for each in release.objects}
    assert components <= {"tokenext", "test", "alerts", "dashboard"}, components
    for each in release.objects:
        found = OF_A_CHAIN.search(json.dumps(each))
        assert found is None, f"{each['kind']} {each['metadata']['name']} speaks of {found}"
    service = release.one("Service", "-tokenext")
    (port,) = (each["port"] for each in service["spec"]["ports"] if each["name"] == "http")
    url = f"http://{service['metadata']['name']}.ns.svc.cluster.local:{port}"
    assert f"DYN_EPP_VLLM_RENDER_URL={url}\n" in release.notes


def the_pool_is_the_workers_and_nobody_else(release: Rendered) -> None:
    for pool in release.of("InferencePool"):
        selector = pool["spec"]["selector"]["matchLabels"].items()
        for component, template in pods(release.objects):
            selected = selector <= template["metadata"]["labels"].items()
            assert selected == (component == "worker"), f"{component}: selected {selected}"
        for graph in release.of("DynamoGraphDeployment"):
            for component in graph["spec"]["components"]:
                assert selector <= component["podTemplate"]["metadata"]["labels"].items()


def names_and_labels_keep_kubernetes_limits(release: Rendered) -> None:
    """Rules of an API server that its schemas do not have."""
    for each in release.objects:
        metadata = each["metadata"]
        assert NAME.fullmatch(metadata["name"]), metadata["name"]
        for labels in (metadata.get("labels", {}), each.get("spec", {}).get("selector") or {}):
            for value in labels.values():
                assert not isinstance(value, str) or LABEL.fullmatch(value), value
    for component, template in pods(release.objects):
        assert all(LABEL.fullmatch(value) for value in template["metadata"]["labels"].values()), component
        spec = template["spec"]
        ports = [port for container in spec["containers"] for port in container.get("ports", ())]
        numbers, names = [port["containerPort"] for port in ports], [port["name"] for port in ports]
        assert len(set(numbers)) == len(numbers), f"{component}: one port for two, {numbers}"
        assert len(set(names)) == len(names), f"{component}: {names}"
        assert all(len(name) <= 15 for name in names), f"{component}: {names}"
        containers = [each["name"] for each in [*spec["containers"], *spec.get("initContainers", ())]]
        assert len(set(containers)) == len(containers), f"{component}: {containers}"
        for container in spec["containers"]:
            variables = [each["name"] for each in container.get("env", ())]
            assert len(set(variables)) == len(variables), f"{component} {container['name']}: {variables}"


def a_selector_never_has_what_an_upgrade_changes(release: Rendered) -> None:
    for each in release.of("Deployment"):
        assert set(each["spec"]["selector"]["matchLabels"]) == {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/component",
        }


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        an_api_server_takes_every_object,
        no_two_objects_have_one_name,
        tokenext_loads_its_settings,
        the_picker_loads_its_settings,
        both_agree_where_the_record_stands,
        every_reference_is_met,
        every_service_finds_the_ports_it_names,
        our_containers_are_unprivileged_with_a_read_only_root,
        who_asks_for_a_token_has_it_mounted_and_monitors_bring_it,
        without_a_picker_there_is_tokenext_and_no_word_of_others,
        the_pool_is_the_workers_and_nobody_else,
        names_and_labels_keep_kubernetes_limits,
        a_selector_never_has_what_an_upgrade_changes,
    )
}
