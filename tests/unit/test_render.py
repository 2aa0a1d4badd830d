"""Rendered manifests: what a review reads and kubectl applies."""

import yaml

from rayline.service.api_key import GATE_SOURCE, gate_name
from rayline_cli import offline, render
from rayline_cli.offline import MASK
from tests.conftest import STACKS, recorded


def test_the_manifests_in_the_repository_are_what_the_program_declares(program):
    assert render.stale(program) == []


def test_every_stack_has_manifests_and_no_other_folder_is_there():
    rendered = {path.name for path in render.MANIFESTS.iterdir()}
    assert set(STACKS) <= rendered <= set(offline.stack_names())


def test_a_stack_renders_its_services_its_namespaces_and_the_operators_values():
    assert {
        f"configmap-{gate_name('qwen')}.yaml",
        "kuberay-operator.values.yaml",
        "namespace-kuberay-system.yaml",
        "namespace-rayline.yaml",
        "networkpolicy-default-deny.yaml",
        "rayservice-qwen.yaml",
    } <= set(render.files(recorded("dev-l4")))
    assert sorted(render.files(recorded("local"))) == [
        f"configmap-{gate_name('chat')}.yaml",
        "namespace-rayline.yaml",
        "rayservice-chat.yaml",
    ]


def test_a_file_in_a_config_map_is_shown_as_it_is():
    text = render.files(recorded("local"))[f"configmap-{gate_name('chat')}.yaml"]
    assert yaml.safe_load(text)["data"] == {"rayline_gate.py": GATE_SOURCE}
    assert "\n    class ApiKeyGate:\n" in text


def test_rendered_manifests_are_the_declared_objects_without_pulumis_fields(program):
    for service in render.ray_services(program):
        text = render.files(program)[f"rayservice-{service['metadata']['name']}.yaml"]
        assert yaml.safe_load(text) == service
        assert "pulumi.com/" not in text
        assert ".0\n" not in text.replace("2.60.0", "").replace("0.0.0.0", "")
        # the Serve configuration is a block that a diff shows line by line
        assert "serveConfigV2: |" in text
        assert "\n      import_path: ray.serve.llm:build_openai_app\n" in text


def test_rendered_files_name_the_secrets_that_they_need_and_show_none(program):
    for name, text in render.files(program).items():
        assert MASK not in text
        if name.startswith("rayservice-"):
            for secret, keys in render.secrets(program).items():
                assert f"#   {secret}: {', '.join(keys)}\n" in text


def test_every_rendered_file_says_where_it_comes_from(program):
    for text in render.files(program).values():
        assert text.startswith(f"# Rendered by `make render` from stacks/Pulumi.{program.stack}.yaml: change that, not this.\n")


def test_writing_makes_the_files_and_removes_those_of_yesterday(tmp_path):
    program = recorded("local")
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "rayservice-gone.yaml").write_text("old")
    (folder / "rayservice-chat.yaml").write_text("old")
    stale = [f"configmap-{gate_name('chat')}.yaml", "namespace-rayline.yaml"]
    stale += ["rayservice-chat.yaml", "rayservice-gone.yaml"]
    assert render.stale(program, tmp_path) == stale
    assert render.write(program, tmp_path) == stale
    assert render.stale(program, tmp_path) == []
    assert render.write(program, tmp_path) == []


def test_recording_a_stack_twice_gives_the_same_text():
    assert render.files(offline.record("dev-l4")) == render.files(recorded("dev-l4"))
