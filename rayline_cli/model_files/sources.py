"""Fetch what a model's files say without its weights: from Hugging Face, a mirror of it, its cache, a folder, or a bucket."""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rayline_cli.errors import FailedError, UsageError

from .folders import BucketFolder, LocalFolder, ModelFolder
from .weights import Tensor, headers_of

# Small files that are fetched; the headers of the weights come by requests for a range of bytes.
SMALL_FILES = (
    *("config.json", "hf_quant_config.json", "modules.json", "sentence_bert_config.json"),
    *("tokenizer_config.json", "chat_template.jinja"),
)


@dataclass(frozen=True)
class ModelSource:
    """A model's own files. `place` is where they lie, for people."""

    place: str
    config: Mapping[str, Any]
    tensors: list[Tensor]
    files: Mapping[str, str] = field(default_factory=dict)
    licence: str = "unknown"
    gated: bool = False

    def json_of(self, name: str) -> Any:
        """Return a JSON file's value; None where there is none."""
        try:
            return json.loads(self.files[name]) if name in self.files else None
        except (ValueError, RecursionError):
            return None


def read_source(source: str, revision: str | None) -> ModelSource:
    """Read a model in a folder here, in a bucket, or at Hugging Face. Raises UsageError or FailedError with the reason."""
    folder = pathlib.Path(source)
    address = "://" in source
    if revision is not None and (address or folder.is_dir()):
        raise UsageError(f"--revision {revision}: is Hugging Face's, and {source} is none of its ids. Fix: leave it out")
    if source.startswith("gs://"):
        return from_folder(BucketFolder(source))
    if address:
        fix = f"copy the model to a folder here, then `rayline model add FOLDER --as {source}`; or --like BASE"
        raise UsageError(f"{source}: of buckets, only those of Cloud Storage (gs://) are read. Fix: {fix}")
    return from_folder(LocalFolder(folder.resolve())) if folder.is_dir() else from_hub(source, revision)


def from_folder(folder: ModelFolder) -> ModelSource:
    """Read a model in a folder. Raises UsageError where it has no config.json or no safetensors files."""
    sizes = folder.sizes()
    files = {name: folder.read(name, sizes[name]).decode(errors="replace") for name in SMALL_FILES if sizes.get(name)}
    return ModelSource(folder.place, _config(files, folder.place), headers_of(folder, sizes), files)


def from_hub(model: str, revision: str | None) -> ModelSource:
    """Fetch a model's small files and headers from Hugging Face.

    HF_TOKEN or `hf auth login` is the token, HF_ENDPOINT a mirror, HF_HUB_OFFLINE=1 the cache alone. Raises UsageError for a model
    that is not there, FailedError where the hub cannot be reached.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        return _from_cache(model, revision)
    # a mirror's address may begin with a user and a password
    at = re.sub("//[^/@]*@", "//", f"{os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'}/{model}")
    try:
        api = hub.HfApi()
        info = api.model_info(model, revision=revision)
        names = {file.rfilename for file in info.siblings or ()}
        paths = {name: api.hf_hub_download(model, name, revision=info.sha) for name in SMALL_FILES if name in names}
        files = {name: pathlib.Path(path).read_text(errors="replace") for name, path in paths.items()}
        config = _config(files, at)
        found = api.get_safetensors_metadata(model, revision=info.sha)
    except UsageError:
        raise
    except errors.GatedRepoError:
        fix = "accept its licence on that page, and set HF_TOKEN to a token of the account"
        raise UsageError(f"{at}: gated, and there is no token that opens it. Fix: {fix}") from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"{at}: no revision {revision}. Fix: a commit, tag or branch of it") from None
    except errors.RepositoryNotFoundError:
        fix = "check the name; for a private model set HF_TOKEN to a token that may read it"
        raise UsageError(f"{at}: no such model, or it is private. Fix: {fix}") from None
    except errors.NotASafetensorsRepoError:
        raise UsageError(
            f"{at}: no safetensors files. Fix: a repository that has them, or a converted copy in a folder"
        ) from None
    except errors.HFValidationError as error:
        raise UsageError(f"{model}: no Hugging Face id ({error}). Fix: OWNER/NAME, or a folder that exists") from None
    except (errors.HfHubHTTPError, errors.SafetensorsParsingError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FailedError(f"{at}: cannot be read: {reason}. Fix: try again, or set HF_ENDPOINT to a mirror") from None
    except Exception as error:
        # the hub's own client raises its transport's errors, whose classes are its own business
        raise FailedError(f"{at}: cannot be reached ({type(error).__name__}). Fix: check the network and HF_ENDPOINT") from None
    tensors = [
        Tensor(name, str(entry.dtype), tuple(entry.shape))
        for part in found.files_metadata.values()
        for name, entry in part.tensors.items()
    ]
    licence = str(getattr(info.card_data, "license", None) or "unknown")
    return ModelSource(f"{model} at {str(info.sha)[:8]}", config, tensors, files, licence, bool(info.gated))


def _from_cache(model: str, revision: str | None) -> ModelSource:
    import huggingface_hub as hub
    from huggingface_hub import errors

    try:
        folder = hub.snapshot_download(model, revision=revision, local_files_only=True)
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        fix = "unset HF_HUB_OFFLINE, or download it with `hf download`"
        raise UsageError(f"{model}: HF_HUB_OFFLINE is set, and the cache has no such model. Fix: {fix}") from None
    return from_folder(LocalFolder(pathlib.Path(folder), f"{model} in the Hugging Face cache"))


def _config(files: Mapping[str, str], place: str) -> Mapping[str, Any]:
    if "config.json" not in files:
        raise UsageError(f"{place}: no config.json. Fix: a model in the form of Hugging Face's transformers")
    try:
        config = json.loads(files["config.json"])
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: config.json is not JSON ({error}). Fix: download it again") from None
    if not isinstance(config, dict):
        raise UsageError(f"{place}: config.json is not a map. Fix: download it again")
    return config
