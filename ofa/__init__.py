"""OFA ("One For All", ICML 2022) for inference: what the model is, apart from how it is served.

`ofa.errors`, `ofa.options`, `ofa.image`, `ofa.tokenizer` and `ofa.tasks` need neither torch nor
transformers, so that a server's pre- and postprocessing stay light; `ofa.model`,
`ofa.generation`, `ofa.checkpoint` and `ofa.export` need torch.
"""
