"""Stages on the nodes of a Ray cluster: one clone a stage there, results exchanged through the DVC remote.

No file system is shared. The head, where the flow runs, hands a node the commit and its `dvc.lock`; the node computes
one stage and pushes what came of it; the head records that and pulls it, so that its `dvc.lock` ends as a local run's.
"""
