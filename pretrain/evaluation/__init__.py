"""The held-out bound or loss, with its interval, while training and after it."""
