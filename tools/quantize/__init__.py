"""Quantizes Hugging Face checkpoint folders to GPTQ checkpoints. Needs numpy only."""
