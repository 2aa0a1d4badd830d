"""What a machine lacks for a deployment is said before it begins, all at once, each with what to do."""

import http.server
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from rayline.cluster.manifests import kubeconfig
from rayline_cli import deploy, preflight
from rayline_cli.preflight import KINDS, Machine, backend_url, google_credentials, metadata_account, missing
from tests.conftest import ROOT

KEY = '{"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\\nhush\\n"}'
BUCKET = {"PULUMI_BACKEND_URL": "gs://my-state", "PULUMI_CONFIG_PASSPHRASE": ""}


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "home"


@pytest.fixture
def machine(home: pathlib.Path) -> Any:
    """A machine with all tools and nothing else."""

    def make(environment: Mapping[str, str] | None = None, *, metadata: bool = False, **more: Any) -> Machine:
        more = {"terminal": False, "which": lambda name: f"/bin/{name}", "metadata": lambda _: metadata} | more
        return Machine(environment=environment or {}, home=home, **more)

    return make


def written(path: pathlib.Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


# --- credentials that the libraries take


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_taken(machine, tmp_path, kind: str) -> None:
    file = written(tmp_path / "credentials.json", json.dumps({"type": kind}))
    assert google_credentials(machine({"GOOGLE_APPLICATION_CREDENTIALS": file}), {}) == []


def test_gclouds_own_file_is_taken(machine, home) -> None:
    written(home / ".config" / "gcloud" / "application_default_credentials.json", '{"type": "authorized_user"}')
    assert google_credentials(machine(), {}) == []


def test_gclouds_own_file_on_windows_is_taken(machine, tmp_path) -> None:
    written(tmp_path / "roaming" / "gcloud" / "application_default_credentials.json", '{"type": "authorized_user"}')
    assert google_credentials(machine({"APPDATA": str(tmp_path / "roaming")}, windows=True), {}) == []


def test_the_account_of_a_machine_of_googles_is_taken(machine) -> None:
    assert google_credentials(machine(metadata=True), {}) == []


@pytest.mark.parametrize("name", ["GOOGLE_CREDENTIALS", "GOOGLE_CLOUD_KEYFILE_JSON", "GCLOUD_KEYFILE_JSON"])
@pytest.mark.parametrize("as_file", [True, False], ids=["file", "text"])
def test_a_key_of_the_provider_is_taken_beside_what_kubectl_reads(machine, tmp_path, name: str, as_file: bool) -> None:
    value = written(tmp_path / "key.json", KEY) if as_file else KEY
    assert google_credentials(machine({name: value}, metadata=True), {}) == []


@pytest.mark.parametrize("setting", ["gcp:accessToken", "gcp:credentials", "gcp:externalCredentials"])
def test_a_setting_of_the_stack_is_taken_beside_what_kubectl_reads(machine, setting: str) -> None:
    assert google_credentials(machine(metadata=True), {setting: preflight._HIDDEN}) == []


def test_a_metadata_server_is_asked_only_where_nothing_else_is_found(machine, tmp_path) -> None:
    def asked(_: Mapping[str, str]) -> bool:
        raise AssertionError

    file = written(tmp_path / "key.json", KEY)
    assert google_credentials(machine({"GOOGLE_APPLICATION_CREDENTIALS": file}, metadata=asked), {}) == []


# --- credentials that they do not take


def problem(machine: Machine, config: Mapping[str, str] | None = None) -> str:
    [found] = google_credentials(machine, config or {})
    assert ". Fix: " in found
    return found


def test_no_credentials_at_all_is_one_problem_with_both_ways_out(machine) -> None:
    found = problem(machine())
    assert found.startswith("there are no Google credentials, and no metadata server offers any.")
    assert "gcloud auth application-default login" in found
    assert "GOOGLE_APPLICATION_CREDENTIALS" in found


def test_a_file_that_is_not_there_is_named(machine) -> None:
    found = problem(machine({"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/key.json"}, metadata=True))
    assert found.startswith("GOOGLE_APPLICATION_CREDENTIALS names /nowhere/key.json, which does not exist.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-----BEGIN PRIVATE KEY-----\nhush", "is not JSON"),
        ("", "is not JSON"),
        ('{"type": "service_acount"}', "has no type of credentials that Google's libraries read"),
        ("[]", "has no type of credentials"),
        ('{"type": "external_account", "credential_source": {"file": "/nowhere/token"}}', "identity token from /nowhere"),
    ],
)
def test_a_file_of_something_else_is_named_and_never_shown(machine, tmp_path, text: str, message: str) -> None:
    file = written(tmp_path / "key.json", text)
    found = problem(machine({"GOOGLE_APPLICATION_CREDENTIALS": file}))
    assert file in found
    assert message in found
    assert "hush" not in found


def test_a_folder_in_the_place_of_a_file_is_said(machine, tmp_path) -> None:
    assert "cannot be read" in problem(machine({"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path)}))


@pytest.mark.parametrize("value", ["{hush", "hush", "hush\nhush", "~/hush"])
def test_a_key_in_a_variable_is_never_shown(machine, value: str) -> None:
    found = problem(machine({"GOOGLE_CREDENTIALS": value}, metadata=True))
    assert "GOOGLE_CREDENTIALS" in found
    assert "hush" not in found


def test_a_file_of_the_providers_variable_that_is_not_there_is_named(machine) -> None:
    found = problem(machine({"GOOGLE_CREDENTIALS": "/nowhere/key.json"}, metadata=True))
    assert found.startswith("GOOGLE_CREDENTIALS names /nowhere/key.json, which does not exist.")


@pytest.mark.parametrize("name", ["GOOGLE_CREDENTIALS", "GOOGLE_OAUTH_ACCESS_TOKEN"])
def test_what_the_provider_alone_reads_is_not_enough_for_kubectl(machine, name: str) -> None:
    assert f"{name} reaches Pulumi's Google provider alone" in problem(machine({name: KEY}))


def test_whom_to_impersonate_is_no_credential(machine) -> None:
    who = {"GOOGLE_IMPERSONATE_SERVICE_ACCOUNT": "d@p.iam.gserviceaccount.com"}
    assert "but there are no credentials to do it with" in problem(machine(who))
    assert google_credentials(machine(who, metadata=True), {}) == []
    assert "gcp:impersonateServiceAccount" in problem(machine(), {"gcp:impersonateServiceAccount": "d@p"})


def test_gclouds_folder_elsewhere_is_not_where_gos_libraries_look(machine, tmp_path) -> None:
    file = written(tmp_path / "sdk" / "application_default_credentials.json", '{"type": "authorized_user"}')
    found = problem(machine({"CLOUDSDK_CONFIG": str(tmp_path / "sdk")}))
    assert f"Fix: export GOOGLE_APPLICATION_CREDENTIALS={file}" in found


# --- the metadata server


class Metadata(http.server.BaseHTTPRequestHandler):
    """As on a machine with a service account, or on one without."""

    account = True
    flavor = "Google"

    def do_GET(self) -> None:
        assert self.headers["Metadata-Flavor"] == "Google"
        self.send_response(200 if self.account else 404)
        self.send_header("Metadata-Flavor", self.flavor)
        self.end_headers()
        token = self.path.partition("?")[0].endswith("/token")
        said = {"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}
        self.wfile.write(json.dumps(said).encode() if token else b"d@p.iam.gserviceaccount.com")

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def metadata_server() -> Iterator[Any]:
    servers = []

    def serve(**attributes: Any) -> str:
        handler = type("Handler", (Metadata,), attributes)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_metadata_server_with_an_account_is_seen(metadata_server) -> None:
    assert metadata_account({"GCE_METADATA_HOST": metadata_server()})


@pytest.mark.parametrize("attributes", [{"account": False}, {"flavor": "Other"}], ids=["no account", "not Google's"])
def test_another_server_is_none(metadata_server, attributes: dict[str, Any]) -> None:
    assert not metadata_account({"GCE_METADATA_HOST": metadata_server(**attributes)})


def test_a_metadata_server_that_says_nothing_costs_a_second_at_most() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begin = time.monotonic()
        assert not metadata_account({"GCE_METADATA_HOST": f"127.0.0.1:{silent.getsockname()[1]}"}, seconds=0.2)
        assert time.monotonic() - begin < 5


def test_nobody_is_asked_where_the_check_is_off(metadata_server) -> None:
    assert not metadata_account({"GCE_METADATA_HOST": metadata_server(), "NO_GCE_CHECK": "true"})


@pytest.mark.skipif(not shutil.which("gke-gcloud-auth-plugin"), reason="needs gke-gcloud-auth-plugin on PATH")
def test_the_plugin_of_the_kubeconfig_takes_what_the_preflight_takes(metadata_server, home) -> None:
    call = json.loads(kubeconfig("c", "gke-1.gke.goog"))["users"][0]["user"]["exec"]

    def asked(**environment: str) -> subprocess.CompletedProcess[str]:
        # neither the machine's login nor its metadata server
        own = {"PATH": os.environ["PATH"], "HOME": str(home), "GCE_METADATA_HOST": "127.0.0.1:1"}
        return subprocess.run(
            [call["command"], *call["args"]], env=own | environment, capture_output=True, text=True, timeout=60
        )

    server = metadata_server()
    assert metadata_account({"GCE_METADATA_HOST": server})
    assert json.loads(asked(GCE_METADATA_HOST=server).stdout)["status"]["token"] == "a-token"
    # Go's libraries do not look into CLOUDSDK_CONFIG
    written(home / "sdk" / "application_default_credentials.json", '{"type": "authorized_user"}')
    moved = asked(CLOUDSDK_CONFIG=str(home / "sdk"), NO_GCE_CHECK="true")
    assert moved.returncode != 0
    assert moved.stdout == ""


# --- Pulumi


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Any:
    """A project with one stack file, which may hold more than its configuration."""

    def make(stack: str, more: str = "") -> pathlib.Path:
        root = tmp_path / "project"
        text = (ROOT / "stacks" / f"Pulumi.{stack}.yaml").read_text()
        written(root / "stacks" / f"Pulumi.{stack}.yaml", text + more)
        written(root / "Pulumi.yaml", "name: rayline\n")
        return root

    return make


def test_a_machine_with_all_of_it_lacks_nothing(stack, machine, project) -> None:
    assert missing(stack("kind"), machine(BUCKET, metadata=True), project("kind")) == []


def test_everything_that_is_missing_is_said_at_once(stack, machine, project) -> None:
    found = missing(stack("dev-l4"), machine(which=lambda _: None), project("dev-l4"))
    for part in ("kubectl", "my-project", "gke-gcloud-auth-plugin", "no backend for the state", "no Google credentials"):
        assert [one for one in found if part in one], part
    assert all(". Fix: " in one for one in found)


def test_without_a_terminal_a_backend_has_to_be_known(stack, machine, project) -> None:
    [found] = missing(stack("kind"), machine(), project("kind"))
    assert "Pulumi has no backend for the state" in found
    assert missing(stack("kind"), machine({"PULUMI_ACCESS_TOKEN": "pul-x"}), project("kind")) == []
    # with one Pulumi asks for it itself
    assert missing(stack("kind"), machine(terminal=True), project("kind")) == []


def test_pulumi_cloud_wants_a_token_or_a_login(stack, machine, project, home) -> None:
    url = "https://api.pulumi.com"
    cloud = {"PULUMI_BACKEND_URL": url}
    [found] = missing(stack("kind"), machine(cloud), project("kind"))
    assert "PULUMI_ACCESS_TOKEN" in found
    written(home / ".pulumi" / "credentials.json", json.dumps({"current": url, "accessTokens": {url: "pul-x"}}))
    assert missing(stack("kind"), machine(), project("kind")) == []


def test_the_backend_is_looked_for_where_pulumi_looks(machine, project, home, tmp_path) -> None:
    root = project("kind")
    assert backend_url(machine(), root) is None
    written(home / ".pulumi" / "credentials.json", '{"current": "gs://of-the-login"}')
    assert backend_url(machine(), root) == "gs://of-the-login"
    written(tmp_path / "other" / "credentials.json", '{"current": "gs://of-the-folder"}')
    assert backend_url(machine({"PULUMI_HOME": str(tmp_path / "other")}), root) == "gs://of-the-folder"
    written(root / "Pulumi.yaml", "name: rayline\nbackend: {url: gs://of-the-project}\n")
    assert backend_url(machine(), root) == "gs://of-the-project"
    assert backend_url(machine(BUCKET), root) == "gs://my-state"


@pytest.mark.parametrize("more", ["encryptionsalt: v1:abc\n", "secretsprovider: passphrase\n", ""])
def test_without_a_terminal_a_bucket_wants_the_passphrase(stack, machine, project, more: str) -> None:
    root, bucket = project("kind", more), {"PULUMI_BACKEND_URL": "file:///state"}
    [found] = missing(stack("kind"), machine(bucket), root)
    assert "PULUMI_CONFIG_PASSPHRASE" in found
    assert "there is no terminal to type it at" in found
    assert missing(stack("kind"), machine(bucket, terminal=True), root) == []
    # an empty one is one
    assert missing(stack("kind"), machine(bucket | {"PULUMI_CONFIG_PASSPHRASE": ""}), root) == []


def test_a_passphrase_file_has_to_be_there(stack, machine, project, tmp_path) -> None:
    root, bucket = project("kind"), {"PULUMI_BACKEND_URL": "file:///state"}
    [found] = missing(stack("kind"), machine(bucket | {"PULUMI_CONFIG_PASSPHRASE_FILE": "/nowhere"}), root)
    assert "PULUMI_CONFIG_PASSPHRASE_FILE names /nowhere, which does not exist" in found
    file = written(tmp_path / "passphrase", "hush")
    assert missing(stack("kind"), machine(bucket | {"PULUMI_CONFIG_PASSPHRASE_FILE": file}), root) == []


def test_a_key_in_the_place_of_a_passphrase_wants_googles_credentials(stack, machine, project) -> None:
    key = "secretsprovider: gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k\nencryptedkey: abc\n"
    root, bucket = project("kind", key), {"PULUMI_BACKEND_URL": "file:///state"}
    [found] = missing(stack("kind"), machine(bucket), root)
    assert "no Google credentials" in found
    assert missing(stack("kind"), machine(bucket, metadata=True), root) == []


def test_state_in_a_bucket_of_googles_wants_credentials_whatever_the_cluster(stack, machine, project) -> None:
    [found] = missing(stack("kind"), machine(BUCKET), project("kind"))
    assert "no Google credentials" in found


def test_the_deployment_asks_the_same_questions(stack, monkeypatch) -> None:
    monkeypatch.setattr(preflight, "missing", lambda program: [program.stack])
    with pytest.raises(deploy.DeployError, match="not ready to deploy:\n  kind"):
        deploy.refuse_unready(stack("kind"))


@pytest.mark.parametrize("value", ["2026-13", "0x_", "="])
def test_a_file_that_the_plan_takes_is_read_the_same_way(stack, machine, project, value: str) -> None:
    root = project("kind", f"x-notes: {value}\nsecretsprovider: gcpkms://k\n")
    assert preflight.secrets_provider("kind", root) == "gcpkms://k"
    path = root / "stacks" / "Pulumi.kind.yaml"
    # as PowerShell's `>` writes it
    path.write_bytes(b"\xff\xfe" + path.read_text().encode("utf-16-le"))
    assert preflight.secrets_provider("kind", root) == "gcpkms://k"
    assert missing(stack("kind"), machine(BUCKET, metadata=True), root) == []


# --- without a terminal


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"yes": True, "terminal": False}, ""),
        ({"yes": False, "terminal": True}, ""),
        ({"yes": False, "terminal": False}, "there is no terminal to confirm at"),
        ({"yes": False, "terminal": True, "as_json": True}, "with --json there is no confirmation"),
        ({"yes": True, "terminal": False, "as_json": True}, ""),
    ],
)
def test_a_command_that_cannot_ask_wants_a_yes(given: dict[str, bool], refused: str) -> None:
    if not refused:
        deploy.need_yes("up", "dev-l4", **given)
        return
    with pytest.raises(deploy.NotConfirmed) as error:
        deploy.need_yes("up", "dev-l4", **given)
    assert str(error.value) == f"{refused}, and --yes is missing. Fix: rayline up --stack dev-l4 --yes"


def test_pulumi_is_told_what_a_person_would_have_said(tmp_path) -> None:
    limits = tmp_path / "limits.json"
    assert deploy.arguments("up", "s", yes=True, policy_config=limits, terminal=False) == [
        *("up", "--stack", "s", "--policy-pack", "policy", "--policy-pack-config", str(limits)),
        *("--yes", "--non-interactive"),
    ]
    assert deploy.arguments("destroy", "s") == ["destroy", "--stack", "s"]
    assert "--yes" not in deploy.arguments("preview", "s", yes=True)
