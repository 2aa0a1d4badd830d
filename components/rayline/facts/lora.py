"""LoRA in vLLM."""

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of `max_lora_rank` (MaxLoRARanks in vllm 0.29.0 vllm/config/lora.py)."""
