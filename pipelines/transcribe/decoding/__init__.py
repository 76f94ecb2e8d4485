"""From log-probabilities to text: greedy and beam decoding, language models, word times."""
