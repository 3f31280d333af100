"""Modelling code beside exported weights: our networks as transformers models.

These files, and those of ``model/`` that they import, are copied flat beside the weights
(:mod:`tools.convert.code`). They need torch and transformers, and nothing of this project.
"""
