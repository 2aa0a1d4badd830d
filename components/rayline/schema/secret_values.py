"""Recognize secrets. A secret must not stand in a manifest, in state or in a message.

Settings, plan and messages share this rule. A name alone is not enough: `max_num_batched_tokens`, `eos_token`, `ssl_keyfile` and
`TOKENIZERS_PARALLELISM` hold no secret. So a name is read word by word and together with its value.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

# --- by name

# In any word of a name: DBPASSWORD counts too.
_STRONG = ("password", "passwd", "passphrase", "secret", "credential", "authorization")
# The last word of a name, before words that number it (API_KEY_ID, MY_TOKEN_2).
_LAST = {"token", "key", "pwd", "pw", "pass", "pgpass", "auth", "cookie"}
# Alone and in lower case they are keys of any map, as in `{key: temperature, value: 1}`.
_ORDINARY = ("key", "pass")
_WHICH = {
    *("id", "value", "string", "text", "data", "content", "b64", "base64", "env", "prod", "dev", "staging", "test"),
    *("old", "new", "previous", "current", "primary", "secondary", "default", "read", "write"),
}
# Before `key` and `token` they mark a secret. Only after them is a plural a secret: API_KEYS, but not max_num_batched_tokens.
_OWNERS = "api|auth|access|secret|private|bearer|refresh|session|client|master|admin|hf|gh|github|gitlab|aws"
_OWNED = re.compile(rf"({_OWNERS})_?(key|token)s?")
# The last word of a name of the place where a secret lies.
_PLACES = {"file", "filename", "keyfile", "certfile", "path", "dir", "folder", "name", "url", "uri", "endpoint"}
_SWITCHES = {"enable", "disable", "use", "skip", "require", "return", "no"}
# Keys that open nothing.
_HARMLESS = {"public", "partition", "sort", "cache", "hash", "routing", "header", "label", "foreign", "kms"}
# Tokens of a text, by their names and by their form: <s>, <|im_end|>, [PAD].
_SPECIAL = {"bos", "eos", "pad", "unk", "sep", "cls", "mask", "image", "video", "audio", "start", "end", "stop"}
_SPECIAL_FORM = re.compile(r"<.*>|\[.*\]", re.DOTALL)
# A file. Its first folder is in lower case, so that a key in base64 is none.
_FILE = re.compile(r"~?/[a-z]+(/[\w.@-]+)*/?")
_NUMBER = re.compile(r"[\d.,-]+")
_NOTHING = {"", "0", "1", "true", "false", "yes", "no", "on", "off", "none", "null", "auto"}


def _words(name: str) -> list[str]:
    """Return the words of a name in snake_case, kebab-case or camelCase, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _secret_by_name(name: str, value: Any) -> bool:
    words, text = _words(name), str(value).strip()
    if not words or words[-1] in _PLACES or words[0] == "allow" or text.lower() in _NOTHING:
        return False
    # OTEL_EXPORTER_OTLP_TRACES_HEADERS: headers for a collector are credentials
    if words[0] == "otel" and words[-1] == "headers":
        return True
    # GOOGLE_APPLICATION_CREDENTIALS is a file
    if _FILE.fullmatch(text) and (words[-1] == "credentials" or not any(part in name.lower() for part in _STRONG)):
        return False
    if any(part in word for word in words for part in _STRONG):
        return True
    if words[0] in _SWITCHES or name in _ORDINARY:
        return False
    while len(words) > 1 and (words[-1] in _WHICH or words[-1].isdigit()):
        words.pop()
    if _OWNED.fullmatch("_".join(words[-2:])) or _OWNED.fullmatch(words[-1]):
        return True
    if words[-1] not in _LAST or (words[-1] == "key" and _HARMLESS & set(words)):
        return False
    if words[-1] == "token" and (_SPECIAL & set(words) or _SPECIAL_FORM.fullmatch(text)):
        return False
    # eos_token_id: 2
    return not (_NUMBER.fullmatch(text) and (not isinstance(value, str) or _words(name)[-1] not in _LAST))


# --- by value

PASSWORD_IN_AN_ADDRESS = "a user and password in an address"
_START = r"(?<![A-Za-z0-9_-])"
_FORMS: dict[str, re.Pattern[str]] = {
    "a private key": re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY"),
    "a Hugging Face token": re.compile(_START + r"hf_[A-Za-z0-9-]{6,}"),
    "an API key": re.compile(
        _START + r"(sk-[\w-]{6,}|AIza[\w-]{10,}|nvapi-[\w-]{6,}|(AKIA|ASIA)[A-Z0-9]{12,}|xox[a-z]-[\w-]{6,}|ya29\.[\w-]{6,})"
    ),
    "a token of a code host": re.compile(_START + r"(gh[oprsu]_\w{6,}|github_pat_\w{6,}|glpat-[\w-]{6,})"),
    "a JSON Web Token": re.compile(_START + r"eyJ[\w-]{8,}\.[\w-]{8,}"),
    # the digits of a port are no password
    PASSWORD_IN_AN_ADDRESS: re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:\[]*:(?!\d*[/?#])[^\s@]+@"),
    "a user or key in an address": re.compile(r"https?://[^\s/?#@:\[]+@"),
}
# Texts with code in them, such as a chat template, are not read for these.
_PARAMETERS: dict[str, re.Pattern[str]] = {
    "a header that proves an identity": re.compile(
        r"(^|[,;\s])((proxy-)?authorization|[\w-]*(api-?key|token|secret))\s*[=:]\s*\S|\b(bearer|basic)\s+[\w+/=.~-]{8,}",
        re.IGNORECASE,
    ),
    "a password or signature among parameters": re.compile(
        r"(^|[?&;,\s])([\w-]*(password|passwd|secret|signature|token|(api|access|account)[_-]?key)|pwd|sig|x-amz-credential)"
        r"=[^\s&;]",
        re.IGNORECASE,
    ),
    "a password or key among arguments": re.compile(
        r"--(((api|auth|access|hf)-?)?token|(api|access|secret)-?key|[\w-]*(password|passwd|secret))[\s=]+(?![-/])\S"
        r"|\bmachine\s+\S+\s+(login\s+\S+\s+)?password\s+\S"
    ),
}
_BASE64 = re.compile(r"[\w+/-]{24,}={0,2}")
_CODE = re.compile(r"\{\{|\{%")
# As curl takes a proxy. `ray:2.60@sha256:...` is an image.
_BARE = re.compile(r"[^\s/:@]+:[^\s/@]+@(?!sha256:)[\w.-]+")


def secret_form(text: str) -> str | None:
    """Return the kind of secret that a text has the form of, else None. JSON, base64 and %40 in a text are read, too."""
    forms = _FORMS if _CODE.search(text) else _FORMS | _PARAMETERS
    for kind, pattern in forms.items():
        if pattern.search(text) or ("%" in text and pattern.search(unquote(text))):
            return kind
    if text.lstrip()[:1] in ("{", "["):
        try:
            inner = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return next((kind for _, kind in secrets_in(inner)), None)
    return secret_form(decoded) if (decoded := _from_base64(text)) else None


def _from_base64(text: str) -> str | None:
    """Return the text in a base64 text, else None."""
    joined = "".join(text.split())
    if not _BASE64.fullmatch(joined):
        return None
    try:
        return base64.b64decode(joined.rstrip("=") + "=" * (-len(joined.rstrip("=")) % 4), altchars=b"-_").decode()
    except ValueError:
        return None


def secret_key(key: str) -> str | None:
    """Return the kind of secret that a map's key is itself, else None. `hf_overrides` is none."""
    return None if re.fullmatch("[a-z_]+", key) else secret_form(key)


def has_bare_password(text: str) -> bool:
    """Return whether an address without a scheme begins with user and password, as in `user:password@proxy:3128`."""
    return _BARE.match(unquote(text)) is not None


def secrets_in(value: Any, name: str = "", path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, kind) of every secret in a value, at any depth. `name` is the value's key."""
    if isinstance(value, Mapping):
        # {name: PASSWORD, value: ...}
        called = next((value[key] for key in ("name", "key") if isinstance(value.get(key), str)), "")
        for key, inner in value.items():
            if kind := secret_key(str(key)):
                yield path, f"{kind} as a key"
            else:
                yield from secrets_in(inner, called if key == "value" and called else str(key), f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        # [[password, ...]]
        pair = path.endswith("]") and len(value) == 2 and isinstance(value[0], str)
        for index, inner in enumerate(value):
            yield from secrets_in(inner, value[0] if pair and index else name, f"{path}[{index}]")
    elif isinstance(value, str) and (kind := secret_form(value)):
        yield path, kind
    elif value is not None and not isinstance(value, bool) and _secret_by_name(name, value):
        yield path, "a secret by its name"


def may_show(name: str, value: Any) -> bool:
    """Return whether a message may repeat the value of a key."""
    return next(secrets_in(value, name), None) is None and not (isinstance(value, str) and has_bare_password(value))
