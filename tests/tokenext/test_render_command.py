"""`tokenext render` as a person and as a script use it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tokenext.__main__ import main
from tokenext.commands.rendering_text import visible

CHAT = {"messages": [{"role": "user", "content": "Zürich \x1b[31m😀"}]}


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "request.json"
    path.write_text(json.dumps(CHAT))
    return path


@pytest.fixture
def config(tmp_path: Path, model_dir: Path) -> Path:
    path = tmp_path / "tokenext.yaml"
    models = [{"name": "m", "aliases": ["org/M"], "source": str(model_dir), "handoff": "dynamo"}]
    path.write_text(json.dumps({"listen": "127.0.0.1:1", "models": models}))
    return path


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict:
    assert main(["render", *arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_a_script_gets_everything_about_a_request(request_file, model_dir, capsys):
    told = as_json(capsys, str(request_file), "--source", str(model_dir), "--profile", "dynamo")
    assert told["prompt"].startswith("<|im_start|>user\nZürich \x1b[31m😀<|im_end|>\n")
    assert told["token_ids"] == [piece["id"] for piece in told["pieces"]]
    assert (told["engine"], told["engine_exact"], told["reason"]) == ("fastokens", True, "")
    assert told["digest"].startswith("sha256:")
    assert told["pieces"][0] == {
        "id": told["token_ids"][0],
        "token": "<|im_start|>",
        "text": "<|im_start|>",
        "start": 0,
        "end": 12,
        "kind": "special",
    }


def test_pieces_cover_the_prompt(request_file, model_dir, capsys):
    told = as_json(capsys, str(request_file), "--source", str(model_dir))
    covered = {place for piece in told["pieces"] for place in range(piece["start"], piece["end"])}
    assert covered == set(range(len(told["prompt"])))


def test_cut_points_are_ends_of_special_tokens(request_file, model_dir, capsys):
    told = as_json(capsys, str(request_file), "--source", str(model_dir))
    ends = {piece["end"] for piece in told["pieces"] if piece["kind"] == "special"}
    assert told["cut_points"]
    assert set(told["cut_points"]) <= ends


def test_a_person_sees_summary_prompt_and_table(request_file, model_dir, capsys):
    assert main(["render", str(request_file), "--source", str(model_dir), "--profile", "dynamo"]) == 0
    told = capsys.readouterr().out
    assert "engine_exact yes\n" in told
    assert "engine       fastokens: agrees with the reference" in told
    assert "\n<|im_start|>user\nZürich " in told
    assert '0:12  "<|im_start|>"  special' in told


def test_nothing_in_a_prompt_acts_on_the_terminal(request_file, model_dir, capsys):
    main(["render", str(request_file), "--source", str(model_dir)])
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\\x1b[31m" in told


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain é 漢", "plain é 漢"), ("a\x00b", "a\\x00b"), ("\u202e", "\\u202e"), ("a\nb\tc", "a\nb\tc")],
)
def test_what_a_terminal_would_act_upon_or_hide_is_escaped(text, shown):
    assert visible(text) == shown


def test_colours_are_for_terminals(request_file, model_dir, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["render", str(request_file), "--source", str(model_dir)])
    assert "\x1b[1;35m" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    main(["render", str(request_file), "--source", str(model_dir)])
    assert "\x1b" not in capsys.readouterr().out


def test_a_request_comes_from_standard_input(model_dir, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(CHAT).encode())))
    assert as_json(capsys, "-", "--source", str(model_dir))["tokenized"] is True


def test_completions_have_their_own_path(tmp_path, model_dir, capsys):
    path = tmp_path / "completion.json"
    path.write_text('{"prompt": "Once upon"}')
    told = as_json(capsys, str(path), "--source", str(model_dir), "--path", "/v1/completions")
    assert told["prompt"] == "Once upon"


def test_the_request_names_its_model_of_the_catalog(tmp_path, config, capsys):
    path = tmp_path / "named.json"
    path.write_text(json.dumps({**CHAT, "model": "org/M"}))
    told = as_json(capsys, str(path), "--config", str(config))
    assert (told["model"], told["handoff"]) == ("m", "dynamo")


def test_a_model_may_be_chosen(request_file, config, capsys):
    assert as_json(capsys, str(request_file), "--config", str(config), "--model", "m")["model"] == "m"


def test_why_ids_would_not_be_handed_over_is_told(tmp_path, model_dir, capsys):
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({**CHAT, "an_unknown_field": 1}))
    told = as_json(capsys, str(path), "--source", str(model_dir))
    assert (told["engine_exact"], told["reason"]) == (False, "unknown_field")
    main(["render", str(path), "--source", str(model_dir)])
    assert "engine_exact no, unknown_field\n" in capsys.readouterr().out


def test_a_directory_is_rendered_in_the_way_of_a_profile(request_file, model_dir, capsys):
    source = ("--source", str(model_dir))
    for profile in ("dynamo", "vllm"):
        assert as_json(capsys, str(request_file), *source, "--profile", profile)["profile"] == profile
    assert main(["render", str(request_file), *source, "--profile", "nobody"]) == 2
    assert capsys.readouterr().err == "tokenext: --profile: Invalid enum value 'nobody'\n"


def test_what_is_not_tokenized_says_why(tmp_path, model_dir, capsys):
    path = tmp_path / "bad.json"
    path.write_text('{"messages": []}')
    told = as_json(capsys, str(path), "--source", str(model_dir), status=1)
    assert told == {"tokenized": False, "reason": "bad_request_shape"}
    assert main(["render", str(path), "--source", str(model_dir)]) == 1
    assert capsys.readouterr().err == "tokenext: such a request is not tokenized: bad_request_shape\n"


@pytest.mark.parametrize(
    ("content", "arguments", "expected"),
    [
        (None, ["--source", "{model}"], "request.json: cannot be read: No such file or directory"),
        ("[1]", ["--source", "{model}"], "request.json: is not a JSON object"),
        ("{}", ["--source", "/no/such"], "--source: '/no/such' is neither a directory nor a hub id"),
        ("{}", ["--config", "{config}"], "request: model: names no model: give --model"),
        ('{"model": 3}', ["--config", "{config}"], "request: model: names no model: give --model"),
        ("{}", ["--config", "{config}", "--model", "x"], "tokenext.yaml: has no model 'x'; it has m"),
        ("{}", ["--source", "{model}", "--model", "x"], "--model goes with --config"),
        ("{}", ["--config", "{config}", "--profile", "x"], "--profile goes with --source"),
    ],
)
def test_unusable_input_is_one_line(config, model_dir, capsys, content, arguments, expected):  # noqa: PLR0917  # fixtures
    path = config.with_name("request.json")
    if content is not None:
        path.write_text(content)
    filled = [each.format(model=model_dir, config=config) for each in arguments]
    assert main(["render", str(path), *filled]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert expected in told


def test_a_changed_bundle_is_refused_by_file(request_file, model_dir, tmp_path, capsys):
    bundle = tmp_path / "bundle"
    assert main(["bundle", str(model_dir), "-o", str(bundle), "--tokenizer", "file"]) == 0
    capsys.readouterr()
    assert as_json(capsys, str(request_file), "--source", str(bundle))["tokenized"] is True
    (bundle / "chat_template.jinja").write_text("other")
    assert main(["render", str(request_file), "--source", str(bundle)]) == 2
    assert f"{bundle}/chat_template.jinja: was changed" in capsys.readouterr().err


@pytest.mark.integration
def test_a_reader_that_has_seen_enough_is_no_error(request_file, model_dir):
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "tokenext", "render", str(request_file), "--source", str(model_dir)]
    with os.fdopen(write_end, "wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
