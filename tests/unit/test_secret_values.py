"""A secret is known by its name and its form, and nothing else is taken for one."""

import ast
import base64
import importlib.util

import pytest

from rayline.facts.runtime import runtime_facts
from rayline.facts.serve_flags import SERVE_FLAGS
from rayline.facts.variables import OWNED
from rayline.schema.secret_values import has_bare_password, may_show, secret_form, secrets_in
from rayline_docs.runtime_facts import folder


def kind(name: str, value: object) -> str | None:
    return next((found for _, found in secrets_in({name: value})), None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ssl_keyfile_password", "hunter2"),
        ("ssl_keyfile_password", 123456),
        ("DBPASSWORD", "hunter2"),
        ("DB_PASS", "hunter2"),
        ("token", "abc"),
        ("MY_TOKEN_2", "abc"),
        ("AWS_ACCESS_KEY_ID", "abc"),
        ("AWS_SECRET_ACCESS_KEY", "/kept/in/base64"),
        ("apiKey", "abc"),
        ("x-api-key", "abc"),
        ("api_key", 12345),
        ("API_KEYS", ["abc", "def"]),
        ("hf_token", "abc"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "{}"),
        ("Authorization", "abc"),
        ("client_secret", "abc"),
        ("SECRET", "abc"),
        ("ENABLE_PASSWORD", "hunter2"),
        ("PASSPHRASE", "abc"),
        ("PGPASS", "abc"),
        ("ADMIN_PW", "abc"),
        ("SESSION_COOKIE", "abc"),
        ("NEXUS_AUTH", "abc"),
        ("NPM_CONFIG__AUTH", "abc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-honeycomb-team=abc"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-honeycomb-team=abc"),
        ("PASS", "abc"),
        ("KEY", "abc"),
    ],
)
def test_a_name_gives_a_secret_away(name, value):
    assert kind(name, value) == "a secret by its name"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_num_batched_tokens", 8192),
        ("max_num_batched_tokens", "8192"),
        ("tokenizer", "Qwen/Qwen3.5-4B"),
        ("tokenizer_mode", "auto"),
        ("skip_tokenizer_init", True),
        ("enable_tokenizer_info_endpoint", True),
        ("kv_cache_dtype", "fp8"),
        ("num_speculative_tokens", 3),
        ("num_key_value_heads", 8),
        ("long_prefill_token_threshold", "2048"),
        ("token_limit", 3),
        ("eos_token_id", 2),
        ("eos_token_id", [1, 2]),
        ("eos_token", "</s>"),
        ("pad_token", "!"),
        ("image_token", "<image>"),
        ("think_token", "<|think|>"),
        ("ssl_keyfile", "/etc/tls/tls.key"),
        ("allow_credentials", "yes"),
        ("hf_token_path", "/etc/token"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/keys/key.json"),
        ("RAY_TLS_SERVER_KEY", "/etc/tls/tls.key"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("KEYCLOAK_URL", "https://login.example.com"),
        ("SECRET_NAME", "hf-secret"),
        ("MONKEY", "x"),
        ("SSH_PUBLIC_KEY", "ssh-ed25519 abc"),
        ("sort_key", "arrival_time"),
        ("SSH_AUTH_SOCK", "/run/agent"),
        ("NCCL_DEBUG", "INFO"),
        ("API_KEY", ""),
        ("key", "temperature"),
        ("pass", "fuse"),
        ("OTEL_SERVICE_NAME", "chat"),
        ("PGPASSFILE", "/secrets/pgpass"),
        ("JIRA_KEY", "/secrets/jira"),
    ],
)
def test_a_name_with_one_of_the_words_need_not_be_a_secrets(name, value):
    assert kind(name, value) is None


def arguments_of_vllm() -> set[str]:
    """The fields of AsyncEngineArgs and FrontendArgs, read from the code: importing it takes long."""
    found = set()
    for path in ("engine/arg_utils.py", "entrypoints/launchers/cli_args.py"):
        for node in ast.parse((folder("vllm") / path).read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith(("EngineArgs", "FrontendArgs")):
                found |= {
                    one.target.id for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                }
    return found


@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed")
def test_of_all_arguments_of_vllm_two_are_secrets():
    names = arguments_of_vllm()
    assert len(names) > 250
    for value in ("text", "3", 3):
        assert {name for name in names if kind(name, value)} == {"api_key", "hf_token"}
    assert not [name for name in names if kind(name, True)]


def test_of_the_variables_of_ray_and_vllm_few_look_like_secrets():
    # constants of Ray that are no variables, and paths and switches, whose own values are taken as such
    harmless = {"RAY_REDIS_CLIENT_KEY", "RAY_TLS_SERVER_KEY", "RAY_ray_cookie", "RAY_enable_cluster_auth", *SERVE_FLAGS}
    suspicious = {name for name in runtime_facts().variables if kind(name, "text")}
    left = {one for one in suspicious - harmless - set(OWNED) if not one.startswith("RAY_NODE_")}
    assert left == {"RAY_RUNTIME_ENV_BEARER_TOKEN", "RAY_SANDBOX_API_TOKEN"}


@pytest.mark.parametrize(
    "text",
    [
        "hf_abcdefgh",
        "sk-proj-abcdefgh",
        "AIzaSyAbcdefghijk",
        "ghp_abcdefgh",
        "github_pat_abcdefgh",
        "glpat-abcdefgh",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.abc",
        "-----BEGIN RSA PRIVATE KEY-----\nabc",
        "-----BEGIN PRIVATE KEY-----",
        "http://alice:hunter2@proxy:3128",
        "http://alice:p%40ss@proxy",
        "http://alice:p/w@proxy",
        "redis://:hunter2@store:6379",
        "see https://alice:hunter2@example.com for more",
        "https://ghp_abcdefgh@github.com/acme/repo",
        "s3://bucket/model?token=abc",
        "https://example.com/x?X-Amz-Signature=abc&X-Amz-Credential=def",
        "authorization=Bearer abcdefgh",
        "x-tenant=a,api-key=abc",
        "Bearer abcdefgh",
        "Server=db;Password=abc",
        '{"a": [{"token": "abc"}]}',
        "https://0123abcd@o1.ingest.example.com/2",
        "http://u%3Ahunter2%40proxy:3128",
        "machine example.com login alice password hunter2",
        "machine example.com password hunter2",
        "serve --api-key hunter2",
        "--token hunter2 --port 1",
        '{"auths": {"registry.example.com": {"auth": "YWxpY2U6aHVudGVyMg=="}}}',
        base64.b64encode(b'{"auths": {"registry.example.com": {"auth": "YWxpY2U6aHVudGVyMg=="}}}').decode(),
        base64.b64encode(b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n").decode(),
        base64.encodebytes(b"-----BEGIN PRIVATE KEY-----\n" + b"MIIE" * 50).decode(),
    ],
)
def test_a_form_gives_a_secret_away(text):
    assert secret_form(text)
    assert not may_show("", text)


@pytest.mark.parametrize(
    "text",
    [
        "Qwen/Qwen3.5-4B",
        "hf-internal-testing/tiny-random-gpt2",
        "hf",
        "sk-SK",
        "http://proxy.example.com:3128",
        "http://proxy.example.com:3128/path@x",
        "https://[::1]:80/x@y",
        "ssh://git@github.com/acme/repo",
        "rayproject/ray-llm@sha256:0123456789abcdef",
        "ray:2.60@sha256:0123456789abcdef",
        "service.name=chat,team=search",
        "group:ml@example.com",
        "gs://my-models/Qwen/Qwen3.5-4B/main",
        '{"type": "filesystem", "params": {"directory_path": "/tmp"}}',
        "{not json",
        "{% for m in messages %}{{ bos_token }} token: {{ m }} secret: x{% endfor %}",
        "-----BEGIN CERTIFICATE-----",
        base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMIIE\n").decode(),
        "--max-num-batched-tokens 8192 --token-limit 3",
        "--token /etc/token",
        "https://example.com/?mail=alice%40example.com",
    ],
)
def test_an_ordinary_text_is_no_secret(text):
    assert secret_form(text) is None


def test_an_address_without_a_scheme_may_have_a_password():
    assert has_bare_password("alice:hunter2@proxy:3128")
    assert has_bare_password("alice%3Ahunter2%40proxy:3128")
    assert not has_bare_password("proxy.example.com:3128")
    assert not has_bare_password("ray:2.60@sha256:0123456789abcdef")


def test_a_pair_of_name_and_value_is_read_as_one():
    for value in ([{"name": "PASSWORD", "value": "x"}], [["password", "x"]], [{"key": "api_key", "value": "x"}]):
        assert len(list(secrets_in({"a": value}))) == 1, value
    harmless = {"rules": [{"key": "temperature", "value": 1}], "pass": "fuse", "sizes": [["height", 2]]}
    assert list(secrets_in(harmless)) == []


def test_a_secret_in_the_place_of_a_key_is_found_and_not_in_the_path():
    found = list(secrets_in({"a": {"hf_abcdefgh1": {"b": 1}, "hf_overrides": {"c": 2}}}))
    assert found == [(".a", "a Hugging Face token as a key")]


def test_secrets_are_found_at_any_depth_with_their_places():
    value = {"a": {"b": [{"token": "x"}, {"c": "hf_abcdefgh"}]}, "tokens": 3, "keys": [{"password": ["y"]}]}
    assert [path for path, _ in secrets_in(value)] == [".a.b[0].token", ".a.b[1].c", ".keys[0].password[0]"]
