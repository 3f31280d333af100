"""Forward noise processes q(x_t | x_0), and their posteriors by Bayes' rule."""
