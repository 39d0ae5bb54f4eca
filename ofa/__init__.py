"""OFA: checkpoints, tokenizers, pictures, tasks, model and beam search. Knows nothing of Triton."""
