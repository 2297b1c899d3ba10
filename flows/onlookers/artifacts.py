"""What a flow run shows on its page in Prefect: the stages, the judges' numbers, the model card, the pictures."""

import base64
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from flows.records.summary import read_results, stage_rows
from flows.stages.outcomes import Outcome

WIDTH = 640  # pixels that a small picture is enlarged to at most
LARGEST = 1_000_000  # bytes of a picture: it is stored in Prefect's database


def leave_stages(outcomes: Sequence[Outcome], run: str) -> None:
    """Leave the table of stages with the current flow run; run: the MLflow run's id."""
    create_table_artifact(stage_rows(outcomes), key="stages", description=f"MLflow run {run}")


def leave_results(root: Path) -> None:
    """Leave what the last stage wrote with the current flow run; what is missing or no picture is left out."""
    if rows := arm_rows(read_results(root)[0]):
        create_table_artifact(rows, key="distances", description="Distances by the judges; lower is better")
    card = root / "report" / "card.md"
    if card.is_file():
        create_markdown_artifact(card.read_text(encoding="utf-8"), key="model-card", description="The model card")
    for name in ("champion", "candidate"):
        sheet = root / "report" / "gate" / f"{name}.png"
        if not sheet.is_file() or sheet.stat().st_size > LARGEST:
            continue
        # The run is over and registered: a page without a picture is no reason for it to fail.
        with suppress(UnidentifiedImageError):
            address = "data:image/png;base64," + base64.b64encode(enlarged(sheet)).decode()
            create_image_artifact(address, key=name, description=f"Images of the {name}")


def enlarged(sheet: Path) -> bytes:
    """Return a picture as PNG; a small one with each pixel as a square of pixels, for Prefect shows it no larger."""
    with Image.open(sheet) as picture:
        if (factor := WIDTH // picture.width) < 2:
            return sheet.read_bytes()
        content = io.BytesIO()
        larger = (picture.width * factor, picture.height * factor)
        picture.resize(larger, Image.Resampling.NEAREST).save(content, "PNG")
    return content.getvalue()


def arm_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table of members and strategies: name, kind, each judge's distance to four digits; the
    nearest first.
    """
    headline = metrics.get("headline") or []
    rows = [
        {"name": arm["name"], "kind": arm["kind"], **{judge: arm["metrics"].get(judge) for judge in headline}}
        for arm in metrics.get("arms") or []
        if {"name", "kind", "metrics"} <= set(arm)
    ]
    rows.sort(key=lambda row: _place(row, headline))
    return [{key: float(f"{v:.4g}") if isinstance(v, float) else v for key, v in row.items()} for row in rows]


def _place(row: dict[str, Any], headline: list[str]) -> float:
    distance = row[headline[0]] if headline else None
    return float("inf") if distance is None else float(distance)
