"""Forward processes q(x_t | x_0), and what follows from them by Bayes' rule."""
