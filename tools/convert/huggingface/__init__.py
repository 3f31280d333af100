"""What stands beside exported weights: the denoiser as transformers sees it.

These files, and those of ``model/`` that they import, are copied flat beside the weights
(:mod:`tools.convert.code`). They need torch and transformers, and nothing of this project.
"""
