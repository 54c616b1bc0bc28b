"""Kubeflow Pipelines components, one folder each: parse, call `exsearch`, write artefacts.

A component's function body is copied into the compiled pipeline and executed in an image
that has this package (and on a laptop by `kfp.local`, in the environment at hand).
"""
