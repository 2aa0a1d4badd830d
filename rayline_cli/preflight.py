"""Check a machine before a deployment: tools, Google's credentials, and Pulumi's state and passphrase without a terminal.

Pulumi's Google provider and the kubeconfig's gke-gcloud-auth-plugin load the credentials themselves. These checks report all
problems at once, before the first of them would stop a deployment half way.
"""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rayline.facts.choices import ClusterMode

from . import offline
from .google_api import TOKEN_VARIABLE
from .offline import PROJECT_ROOT, Program
from .stack_files import read_document

KUBECTL = (
    "kubectl is not on PATH; it is needed to verify the deployment. "
    "Fix: gcloud components install kubectl, or https://kubernetes.io/docs/tasks/tools"
)
PLUGIN = (
    "gke-gcloud-auth-plugin is not on PATH; the kubeconfig of a GKE cluster calls it. Fix: gcloud components install "
    "gke-gcloud-auth-plugin, or apt-get install google-cloud-cli-gke-gcloud-auth-plugin"
)
# The provider's own ways, before application default credentials (hashicorp/terraform-provider-google
# google/provider/provider.go at e03b7622; pulumi-gcp's provider/resources.go names the same).
_OWN_SETTINGS = ("gcp:externalCredentials", "gcp:accessToken", "gcp:credentials")
_KEY_VARIABLES = ("GOOGLE_CREDENTIALS", "GOOGLE_CLOUD_KEYFILE_JSON", "GCLOUD_KEYFILE_JSON")
_IMPERSONATION = ("gcp:impersonateServiceAccount", "GOOGLE_IMPERSONATE_SERVICE_ACCOUNT")
_FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_FILE_NAME = "application_default_credentials.json"
# googleapis/google-cloud-go auth/internal/credsfile/credsfile.go
KINDS = (
    "service_account",
    "authorized_user",
    "impersonated_service_account",
    "external_account",
    "external_account_authorized_user",
    "gdch_service_account",
)
# Where the metadata server answers on every kind of machine of Google's; no name has to be resolved for it.
_METADATA_ADDRESS = "169.254.169.254"
_METADATA_ACCOUNT = "/computeMetadata/v1/instance/service-accounts/default/email"
METADATA_SECONDS = 1.0
_HIDDEN = "(secret)"
_LOGIN = (
    f"Fix: gcloud auth application-default login, or set {_FILE_VARIABLE} to a file: a service account's key or a "
    "workload identity configuration"
)


def metadata_account(environment: Mapping[str, str], seconds: float = METADATA_SECONDS) -> bool:
    """Return whether a metadata server of Google's offers this machine a service account. Waits `seconds` at most."""
    if environment.get("NO_GCE_CHECK") == "true":
        return False
    host = environment.get("GCE_METADATA_HOST") or environment.get("GCE_METADATA_IP") or _METADATA_ADDRESS
    # no proxy: the address belongs to the machine
    connection = http.client.HTTPConnection(host, timeout=seconds)
    with contextlib.closing(connection):
        try:
            connection.request("GET", _METADATA_ACCOUNT, headers={"Metadata-Flavor": "Google"})
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200 and answer.headers.get("Metadata-Flavor") == "Google"


@dataclass(frozen=True)
class Machine:
    """The machine that deploys."""

    environment: Mapping[str, str]
    home: pathlib.Path
    terminal: bool
    """Whether a person can confirm and log in."""
    which: Callable[[str], str | None] = shutil.which
    metadata: Callable[[Mapping[str, str]], bool] = metadata_account
    """Called only where there are no other credentials."""
    windows: bool = os.name == "nt"

    @classmethod
    def this(cls) -> "Machine":
        """Return the machine that this runs on."""
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        return cls(environment=os.environ, home=pathlib.Path.home(), terminal=terminal)

    def default_credentials(self) -> pathlib.Path:
        """Return the file of `gcloud auth application-default login`, where Google's Go libraries look for it."""
        if self.windows:
            return pathlib.Path(self.environment.get("APPDATA", ""), "gcloud", _FILE_NAME)
        return self.home / ".config" / "gcloud" / _FILE_NAME


def missing(program: Program, machine: Machine | None = None, root: pathlib.Path = PROJECT_ROOT) -> list[str]:
    """Return what the machine lacks for the stack, each as `what is wrong. Fix: what to do`; empty when nothing is missing."""
    machine = machine or Machine.this()
    stack = _StackFile.read(program.stack, root)
    backend = backend_url(machine, root)
    created, on_google = program.plan.cluster.mode is ClusterMode.CREATE, program.plan.cluster.on_google
    problems = [] if machine.which("kubectl") else [KUBECTL]
    if on_google and program.plan.cluster.project == "my-project":
        fix = f"pulumi config set gcp:project YOUR-PROJECT --stack {program.stack}"
        problems.append(f"gcp:project is my-project, the example's. Fix: {fix}")
    if created and not machine.which("gke-gcloud-auth-plugin"):
        problems.append(PLUGIN)
    problems += [*_backend(machine, backend), *_secrets(machine, stack, backend)]
    # state and key in Google Cloud need credentials, whatever the cluster is
    if on_google or (backend or "").startswith("gs://") or stack.secrets_provider.startswith("gcpkms://"):
        problems += google_credentials(machine, stack.config if on_google else {})
    return list(dict.fromkeys(problems))


# --- Google


def google_credentials(machine: Machine, config: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the credentials for Google Cloud; empty where the libraries will find sound ones.

    There are two readers. Pulumi's Google provider has settings of its own. gke-gcloud-auth-plugin, the state's bucket and its
    key take application default credentials alone.
    """
    environment = machine.environment
    own = next((name for name in _OWN_SETTINGS if config.get(name)), None)
    own = own or next((name for name in (*_KEY_VARIABLES, TOKEN_VARIABLE) if environment.get(name)), None)
    problems: list[str] = []
    if own in _KEY_VARIABLES or (own == "gcp:credentials" and config[own] != _HIDDEN):
        problems = _key(own, config.get(own) or environment[own], machine)
    if path := environment.get(_FILE_VARIABLE):
        return problems + _file(_FILE_VARIABLE, pathlib.Path(path))
    if (usual := machine.default_credentials()).exists():
        return problems + _file("", usual)
    if problems or machine.metadata(environment):
        return problems
    moved = pathlib.Path(environment.get("CLOUDSDK_CONFIG") or "/nowhere", _FILE_NAME)
    borrowed = next((name for name in _IMPERSONATION if config.get(name) or environment.get(name)), None)
    if moved.exists():
        wrong = f"the credentials in {moved} have no effect: Google's Go libraries do not read CLOUDSDK_CONFIG"
        return [f"{wrong}. Fix: export {_FILE_VARIABLE}={moved}"]
    if own:
        wrong = f"{own} reaches Pulumi's Google provider alone; kubectl and a state bucket need application default credentials"
    elif borrowed:
        wrong = f"{borrowed} names a service account to impersonate, but there are no credentials to do it with"
    else:
        wrong = "there are no Google credentials, and no metadata server offers any"
    return [f"{wrong}. {_LOGIN}"]


def _key(name: str, value: str, machine: Machine) -> list[str]:
    """Check a variable that holds a key, or the path of one. The value is never shown unless it is a path."""
    if value.lstrip().startswith("{"):
        return _document(name, value)
    path = pathlib.Path(value.replace("~", str(machine.home), 1) if value.startswith("~") else value)
    with contextlib.suppress(OSError):
        if path.is_file() or ("\n" not in value and value.endswith(".json")):
            return _file(name, path)
    return [f"{name} is neither JSON nor the path of a file. Fix: set it to a key in JSON, or to a key's file"]


def _file(name: str, path: pathlib.Path) -> list[str]:
    """Check a file of credentials, which the variable `name` names."""
    what = f"{name} names {path}, which" if name else str(path)
    try:
        return _document(what, path.read_text())
    except FileNotFoundError:
        return [f"{what} does not exist. Fix: name a file that does, or unset {name}"]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        return [f"{what} cannot be read: {reason}. Fix: name a file of credentials in JSON"]


def _document(what: str, text: str) -> list[str]:
    """Check the text of a file of credentials."""
    try:
        document = json.loads(text)
    except ValueError:
        # the error would quote the text
        return [f"{what} is not JSON. Fix: get the file again; a key passed through a variable often loses its line ends"]
    kind = document.get("type") if isinstance(document, dict) else None
    if kind not in KINDS:
        return [f"{what} has no type of credentials that Google's libraries read. Fix: one of {', '.join(KINDS)}"]
    token = (document.get("credential_source") or {}).get("file") if kind == "external_account" else None
    if token and not pathlib.Path(token).exists():
        wrong = f"{what} reads its identity token from {token}, which does not exist"
        return [f"{wrong}. Fix: let the job write its OIDC token there first"]
    return []


# --- Pulumi


@dataclass(frozen=True)
class _StackFile:
    """The keys of a stack file that are Pulumi's and its providers'."""

    config: Mapping[str, str]
    secrets_provider: str
    passphrase: bool
    """Whether its secrets are encrypted with a passphrase."""
    other_key: bool
    """Whether they are encrypted with something else."""

    @classmethod
    def read(cls, stack: str, root: pathlib.Path) -> "_StackFile":
        config, secret = offline.read_stack(stack, root)
        document = read_document(root / "stacks" / f"Pulumi.{stack}.yaml")
        provider = str(document.get("secretsprovider") or "")
        other = provider not in ("", "passphrase") or "encryptedkey" in document
        passphrase = provider == "passphrase" or "encryptionsalt" in document
        return cls(config | dict.fromkeys(secret, _HIDDEN), provider, passphrase and not other, other)


def secrets_provider(stack: str, root: pathlib.Path = PROJECT_ROOT) -> str:
    """Return the secrets provider that a stack's file names; empty for Pulumi's default."""
    return _StackFile.read(stack, root).secrets_provider


def backend_url(machine: Machine, root: pathlib.Path = PROJECT_ROOT) -> str | None:
    """Return the address of Pulumi's backend; None where none is set (pulumi pkg/workspace/creds.go)."""
    if url := machine.environment.get("PULUMI_BACKEND_URL"):
        return url
    backend = read_document(root / "Pulumi.yaml").get("backend")
    return (backend if isinstance(backend, dict) else {}).get("url") or _stored(machine).get("current") or None


def _stored(machine: Machine) -> dict[str, Any]:
    """Return the credentials that `pulumi login` stored."""
    folder = machine.environment.get("PULUMI_CREDENTIALS_PATH") or machine.environment.get("PULUMI_HOME")
    path = pathlib.Path(folder) if folder else machine.home / ".pulumi"
    try:
        document = json.loads((path / "credentials.json").read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _backend(machine: Machine, url: str | None) -> Iterator[str]:
    """Yield what is wrong with the login to the backend. With a terminal Pulumi prompts for it."""
    if machine.terminal or machine.environment.get("PULUMI_ACCESS_TOKEN"):
        return
    if url is None:
        fix = "pulumi login gs://MY-STATE-BUCKET, or set PULUMI_BACKEND_URL, or PULUMI_ACCESS_TOKEN for Pulumi Cloud"
        yield f"Pulumi has no backend for the state, and there is no terminal to log in at. Fix: {fix}"
    elif url.startswith("http"):
        stored = _stored(machine)
        if url not in {**(stored.get("accessTokens") or {}), **(stored.get("accounts") or {})}:
            yield f"there is no login to {url}. Fix: set PULUMI_ACCESS_TOKEN"


def _secrets(machine: Machine, stack: _StackFile, backend: str | None) -> Iterator[str]:
    """Yield what is wrong with the passphrase, where one is needed (pulumi pkg/secrets/passphrase/manager.go)."""
    # a bucket encrypts with a passphrase unless the stack names something else; Pulumi Cloud has keys of its own
    by_default = backend is not None and not backend.startswith("http") and not stack.other_key
    if not (stack.passphrase or by_default) or "PULUMI_CONFIG_PASSPHRASE" in machine.environment:
        return
    if file := machine.environment.get("PULUMI_CONFIG_PASSPHRASE_FILE"):
        if not pathlib.Path(file).is_file():
            yield f"PULUMI_CONFIG_PASSPHRASE_FILE names {file}, which does not exist. Fix: name a file that does"
    elif not machine.terminal:
        fix = (
            "set PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE, or use a key: pulumi stack change-secrets-provider"
        )
        yield f"the stack's secrets are encrypted with a passphrase, and there is no terminal to type it at. Fix: {fix}"
