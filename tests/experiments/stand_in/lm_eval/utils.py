"""Windows of a long text: tokens before, and those to be scored."""


def get_rolling_token_windows(tokens, first, length, _context):
    for start in range(0, len(tokens), length):
        yield (
            [tokens[start - 1] if start else first, *tokens[start : start + length - 1]],
            tokens[start : start + length],
        )


def make_disjoint_window(pair):
    before, scored = pair
    return before[: len(before) - len(scored) + 1], scored
