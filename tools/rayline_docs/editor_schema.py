"""Write the JSON Schema of stack files. Editors complete and check the files with it (yaml-language-server)."""

import json
from typing import Any

from rayline.platform.arguments import InferencePlatformArgs
from rayline.schema.base import Arguments
from rayline.schema.read import PROVIDER_KEYS, TOKEN_KEY
from rayline.schema.texts import field_texts
from rayline_cli.stack_names import PROJECT_ROOT
from rayline_docs.keys import places

FILE = PROJECT_ROOT / "stacks" / "schema.json"


def schema(project: str = "rayline") -> dict[str, Any]:
    """Return the JSON Schema. Keys of the program may have the project's prefix, as Pulumi's CLI writes them."""
    made = InferencePlatformArgs.model_json_schema()
    definitions = made["$defs"]
    for arguments in {arguments for _, arguments in places()}:
        properties = (made if arguments is InferencePlatformArgs else definitions[arguments.__name__])["properties"]
        _describe(arguments, properties)
    definitions["HuggingFaceArgs"]["properties"].pop("token")
    own = {str(PROVIDER_KEYS.get(key, key)): value for key, value in made["properties"].items()}
    secret = {"type": "object", "properties": {"secure": {"type": "string"}}, "required": ["secure"]}
    own[TOKEN_KEY] = secret | {"description": f"Written by `pulumi config set --secret {TOKEN_KEY}`."}
    prefixed = {f"{project}:{key}": value for key, value in own.items() if ":" not in key}
    needed = [{"anyOf": [{"required": [key]}, {"required": [f"{project}:{key}"]}]} for key in made["required"]]
    config = {
        "type": "object",
        "properties": own | prefixed,
        "allOf": needed,
        # of the providers
        "patternProperties": {"^(gcp|kubernetes|pulumi|random):": {}},
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Stack file of rayline",
        "type": "object",
        "properties": {
            "config": config,
            **{key: {"type": "string"} for key in ("encryptionsalt", "encryptedkey", "secretsprovider")},
            "environment": {},
        },
        # notes, and what aliases repeat
        "patternProperties": {"^x-": {}},
        "required": ["config"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _describe(arguments: type[Arguments], properties: dict[str, Any]) -> None:
    for name, text in field_texts(arguments).items():
        properties[name]["description"] = text
        properties[name].pop("title", None)
        if "patternProperties" in properties[name]:
            # names of one's own have a form
            properties[name]["additionalProperties"] = False


def text() -> str:
    """Return the file's content."""
    return json.dumps(schema(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
