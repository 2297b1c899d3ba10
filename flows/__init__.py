"""Orchestration of the stages that `dvc.yaml` describes; knows stages by name, knows no tensor."""
