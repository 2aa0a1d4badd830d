"""A hint is given for a likely misspelling, and for nothing else."""

import pytest

from rayline.facts.accelerators import ACCELERATORS
from rayline.models.catalog import shipped_models
from rayline.schema.spelling import distance, hint, meant
from rayline.service.arguments import EngineArgs, ServiceArgs

MODELS = shipped_models()

KEYS = [*ServiceArgs.model_fields, *EngineArgs.model_fields]
REGIONS = sorted({zone.rsplit("-", 1)[0] for spec in ACCELERATORS.values() for zone in spec.zones})


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("modl", KEYS, "model"),
        ("max_modle_len", KEYS, "max_model_len"),
        ("tensor_paralel_sise", KEYS, "tensor_parallel_size"),
        ("Replicas", KEYS, "replicas"),
        ("tensor_parallel", KEYS, "tensor_parallel_size"),
        ("Qwen/Qwen3.5-4b", MODELS, "Qwen/Qwen3.5-4B"),
        ("Qwen/Qwen35-4B", MODELS, "Qwen/Qwen3.5-4B"),
        ("Qwen3.5-4B", MODELS, "Qwen/Qwen3.5-4B"),
        ("us-centrall1", REGIONS, "us-central1"),
        ("europe-west-4", REGIONS, "europe-west4"),
    ],
)
def test_a_misspelt_word_is_recognised(word, known, expected):
    assert meant(word, known) == expected


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("Qwen/Qwen3-32B", MODELS),
        ("Qwen/Qwen3-4B", MODELS),
        ("Qwen/Qwen3.5-8B", MODELS),
        ("Qwen/Qwen3.5-27B-FP8", MODELS),
        ("Qwen/Qwen3.5-4B-Base", MODELS),
        ("google/gemma-4-31B", MODELS),
        ("google/gemma-3-4b-it", MODELS),
        ("meta-llama/Llama-3.1-8B-Instruct", MODELS),
        ("us-central2", REGIONS),
        ("us-west9", REGIONS),
        ("gpus", KEYS),
        ("pool", KEYS),
        ("tp", KEYS),
        ("", KEYS),
    ],
)
def test_another_thing_is_no_misspelling(word, known):
    assert meant(word, known) is None


def test_no_model_of_the_table_is_taken_for_another_one():
    for model in MODELS:
        assert meant(model, [one for one in MODELS if one != model]) is None


def test_without_a_hint_a_message_says_what_there_is():
    assert hint("modl", KEYS, "known: model") == "did you mean model?"
    assert hint("gpus", KEYS, "known: model") == "known: model"


@pytest.mark.parametrize(
    ("one", "other", "mistakes"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 1), ("modle", "model", 1)],
)
def test_mistakes_are_counted_both_ways(one, other, mistakes):
    assert distance(one, other) == distance(other, one) == mistakes
