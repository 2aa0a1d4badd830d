"""Start-up logs of vLLM on machines of other people: the yardstick for components/rayline/service/fit.py.

Rows are start-up logs from public repositories and notebooks, read as stored copies. A figure that a log does not print
is either vLLM's default for that version and card (checked in its source) or derived, as `note` has it.
"""

from dataclasses import dataclass

from rayline.models.catalog import shipped_models
from rayline.service.fit import memory_fit
from rayline.service.types import EngineLimits, LoadedModel, MemoryFit

MODELS = shipped_models()


@dataclass(frozen=True)
class LoggedStart:
    """One start-up log. `card_gib` is CUDA's total for the card, `kv_cache_gib` and `concurrency` are what was printed."""

    model_id: str
    card: str
    card_gib: float
    vllm: str
    gpu_memory_utilization: float
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    prefix_caching: bool
    kv_cache_gib: float
    concurrency: float
    note: str
    tensor_parallel_size: int = 1
    served: str = ""
    """The model that ran, where it is another one of the same shape."""
    loaded: LoadedModel | None = None
    """The model as this start loaded it. Default: the model's file without a change."""

    @property
    def reserve_gib(self) -> float:
        """Return the memory for activations, graphs and the CUDA context: the budget less weights and KV cache."""
        return self.card_gib * self.gpu_memory_utilization - self.fit().weights_gib - self.kv_cache_gib

    def fit(self) -> MemoryFit:
        """Return the estimate of components/rayline/service/fit.py for the same start, without the log."""
        limits = EngineLimits(
            self.max_model_len,
            self.max_num_seqs,
            self.max_num_batched_tokens,
            self.gpu_memory_utilization,
            # asynchronous scheduling came with 0.26
            batches_in_flight=2 if int(self.vllm.split(".")[1]) >= 26 else 1,
        )
        return memory_fit(
            self.loaded or LoadedModel(MODELS[self.model_id]),
            limits,
            memory_gib=self.card_gib,
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=1,
            prefix_caching=self.prefix_caching,
        )

    def concurrency_from_logged_memory(self) -> float:
        """Return the concurrency of the block model alone: the logged GiB cut into blocks, without the memory estimate."""
        fit = self.fit()
        blocks = int(self.kv_cache_gib * 2**30 // fit.layout.block_bytes)
        return blocks / fit.layout.blocks_per_request(self.max_model_len, fit.limits.tokens_in_flight)


LOGGED_STARTS: tuple[LoggedStart, ...] = (
    LoggedStart(
        "Qwen/Qwen3.5-0.8B", "A100 80 GB", 79.25, "0.28.0", 0.92, 262144, 256, 8192, True, 67.08, 22.08,
        "card total derived from a second log of the same machine, which prints all parts",
    ),
    LoggedStart(
        "Qwen/Qwen3.5-4B", "L4", 22.03, "0.29.0", 0.92, 32768, 256, 2048, True, 9.1, 8.17,
        "this kit's own pair of card and vLLM; the activation estimate is calibrated on this row, so it is no independent proof",
    ),
    LoggedStart(
        "Qwen/Qwen3.5-9B", "L40S", 44.42, "0.19.0", 0.90, 262144, 256, 8192, False, 20.27, 2.52,
        "this version deducted no CUDA graphs (it measured 0.65 GiB of them afterwards); our activation estimate is cautious at 8,192 tokens",
    ),
    LoggedStart(
        "Qwen/Qwen3.5-9B", "RTX 5090", 31.37, "0.20.0", 0.85, 4096, 256, 8192, False, 6.56, 36.91,
        "batch size not printed: 8,192 is the default of `vllm bench latency`; no graphs deducted; 1.3 GiB of caution weigh much on a small KV cache",
    ),
    LoggedStart(
        "Qwen/Qwen3.5-9B", "2 x RTX 5090", 31.37, "0.20.0", 0.85, 4096, 256, 8192, False, 15.06, 169.82,
        "the same, tensor parallel 2",
        tensor_parallel_size=2,
    ),
    LoggedStart(
        "Qwen/Qwen3.5-27B", "RTX PRO 6000", 94.97, "0.29.0", 0.90, 8192, 256, 8192, True, 31.24, 38.35,
        "measured on Qwen3.8-27B, which has the same shape",
        served="Qwen3.8-27B",
    ),
    LoggedStart(
        "Qwen/Qwen3.5-27B", "2 x RTX 5090", 31.37, "0.26.1", 0.92, 262144, 256, 2048, True, 11.75, 1.44,
        "KV cache computed from the concurrency: 491 blocks, of which a request holds 341. These are the numbers of a 16-bit cache; "
        "with the FP8 cache that the page names beside it a request would hold 174",
        tensor_parallel_size=2,
        served="Qwen3.8-27B-FP8",
        loaded=LoadedModel(MODELS["Qwen/Qwen3.5-27B"], bytes_per_weight=1.0),
    ),
    LoggedStart(
        "Qwen/Qwen3.5-27B", "2 x RTX 5090", 31.37, "0.26.1", 0.92, 262144, 256, 2048, True, 14.62, 3.51,
        "NVFP4 and FP8 mixed, FP8 KV cache: 611 blocks, 174 a request. The weights are the logged 10.64 GiB a GPU",
        tensor_parallel_size=2,
        served="Qwen3.8-27B-NVFP4 (unsloth)",
        loaded=LoadedModel(MODELS["Qwen/Qwen3.5-27B"].model_copy(update={"loaded_gib": 2 * 10.64}), kv_value_bytes=1),
    ),
    LoggedStart(
        "Qwen/Qwen3-30B-A3B-FP8", "4 x L4", 22.03, "0.29.0", 0.85, 40960, 256, 2048, True, 9.2, 9.81,
        "weights logged as 7.4 GiB a GPU; context and sequences are not printed: defaults of the model and of the card",
        tensor_parallel_size=4,
    ),
    LoggedStart(
        "Qwen/Qwen3-0.6B", "RTX 3060", 11.63, "0.19.0", 0.60, 4096, 8, 1024, True, 5.68, 12.98,
        "eager mode, no graphs: the fixed 1.0 GiB is a reserve that this start did not need",
    ),
    LoggedStart(
        "google/gemma-4-E4B-it", "24 GB card", 23.5, "0.22.1", 0.90, 32768, 256, 2048, True, 4.1, 6.85,
        "card total assumed; one batch in flight before 0.26",
    ),
    LoggedStart(
        "google/gemma-4-31B-it", "RTX PRO 6000 class", 94.97, "0.23.0", 0.94, 32768, 20, 8192, True, 28.41, 2.98,
        "one batch in flight before 0.26, as the row of that runtime says",
    ),
    LoggedStart(
        "google/gemma-4-31B-it", "B300", 267.69, "0.26.0", 0.92, 16384, 1024, 8192, True, 182.37, 13.25,
        "two batches in flight, as in 0.29",
    ),
)  # fmt: skip
