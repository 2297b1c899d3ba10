"""The section `gate`: what a new version has to fulfil before it may replace the one in use."""

from typing import Annotated

from pydantic import Field

from pipeline.params.fields import Flag, Fraction, Positive, Section


class Gate(Section):
    """Rules of the gate; null leaves one out.

    improvement: share of the champion's distance that the whole interval has to lie beyond. precision, recall,
    coverage, authentic: floors, as shares of what real images reach that nobody has learnt from. max_milliseconds: of
    drawing an image, on the machine that runs the gate. max_megabytes: of the packaged model. auto_promote: whether a
    version that fulfils all rules becomes the champion without a person.
    """

    improvement: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    precision: Fraction | None = 0.5
    recall: Fraction | None = 0.5
    coverage: Fraction | None = 0.5
    authentic: Fraction | None = 0.5
    max_milliseconds: Positive | None = None
    max_megabytes: Positive | None = None
    auto_promote: Flag = False
