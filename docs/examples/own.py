"""A policy and a channel of one's own, which a scenario names as `own:careful_start` and `own:blocked`."""


def careful_start(nodes, level=0.9, checked=32):
    """Keep no draft among the first `checked` tokens, later those whose largest probability is at least `level`."""
    return (nodes.position >= checked) & (nodes.top1_probability >= level)


def blocked(rng, size, *, share=0.2, loss_db=15.0):
    """Yield power gains, of mean one, of a path that something stands in for a `share` of the blocks."""
    loss = 10 ** (-loss_db / 10)
    clear = 1 / (1 - share + share * loss)
    while True:
        yield clear * loss ** (rng.random(size) < share)
