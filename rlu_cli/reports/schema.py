"""The report as data. Keys once published stay; every format is rendered from this."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = "1.4"
LONGEST_TEXT = 4096  # characters of a path or name in a report


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())


class ClassCount(_Part):
    """One class. `count` is null when K is not known, `count` and `share` when redacted."""

    index: int
    name: str | None = Field(alias="class")
    count: int | None
    share: float | None
    per_pass: int | None = Field(None, description="labels in each full pass over the samples")
    low: int | None = Field(None, description="bounds of the count at --confidence, where known")
    high: int | None = None
    share_low: float | None = Field(None, description="bounds of the share at --confidence")
    share_high: float | None = None
    present: bool | None = Field(None, description="whether a method that gives a set has it in it")
    not_identifiable_from: list[int] | None = Field(
        None,
        description="classes of which only the sum with this one is identifiable; null where the "
        "error is not known",
    )
    confused_with: list[int] | None = Field(
        None, description="`not_identifiable_from`, under its name up to 1.2"
    )


class Interval(_Part):
    """A figure to expect, and its interval at --confidence."""

    value: float
    low: float
    high: float


class VerdictPart(_Part):
    """Whether the answer can be relied on; the cause where it cannot."""

    level: str = Field(description="reliable, rough or unreliable")
    cause: str | None = Field(None, description="the one most likely cause, as a sentence")
    advice: str | None = Field(None, description="what to do about it")


class Result(_Part):
    """Label counts of one client."""

    gives: str = Field("counts", description="counts, or set: then counts are K spread over it")
    counts: list[ClassCount]
    total: int | None = Field(description="K, the labels that went into the update")
    passes: int = Field(1, description="full passes over the client's samples")
    status: str = Field(description="how the estimate ended, in a sentence")
    ok: bool = Field(
        description="whether the estimate converged and tells more than a uniform guess"
    )
    expected_iacc: Interval | None = Field(
        None, description="from the posterior of the shares; null where the error is not known"
    )
    expected_floor: float | None = Field(
        None, description="expected iAcc of a uniform guess, from the same posterior"
    )
    verdict: VerdictPart | None = None


class Metrics(_Part):
    """Scores against the truth, and those of a uniform guess."""

    cacc: float = Field(description="share of classes whose presence is right (Eq. 91)")
    iacc: float = Field(description="share of labels that are right (Eq. 92)")
    exact: float = Field(description="share of classes whose count is exactly right")
    floor_cacc: float
    floor_iacc: float


class Notice(_Part):
    """A warning, with a code that stays the same from version to version."""

    code: str
    text: str


class Input(_Part):
    """One input; a folder's hash is over its sorted list of relative path and file hash."""

    path: str | None
    sha256: str


class SettingValue(_Part):
    """A value the run depended on, and where it came from."""

    value: Any
    source: str


class OutputLayer(_Part):
    """The layer whose update was read."""

    name: str
    classes: int
    width: int
    bias: bool


class Hypothesis(_Part):
    """A candidate architecture and scaling that keys and shapes leave open, and its fit."""

    model: str
    arguments: dict[str, Any]
    normalize: str
    embedding_cosine: float | None
    embedding_norm_ratio: float | None
    weight: float | None = Field(None, description="posterior probability among the candidates")


class MethodResult(_Part):
    """What one method found; `result` is null where it cannot be used, with the reason."""

    method: str
    title: str = Field(description="as its paper writes it")
    refused: str | None
    chosen: str | None = Field(description="why, where auto selected it")
    result: Result | None
    metrics: Metrics | None
    diagnostics: dict[str, Any]
    warnings: list[Notice]


class JointShare(_Part):
    """One class over all rounds; null but for the index when redacted."""

    index: int
    name: str | None = Field(alias="class")
    share: float | None
    low: float | None = Field(None, description="bounds of the share at --confidence, where known")
    high: float | None = None


class RoundUsed(_Part):
    """A round of the client that entered the joint estimate."""

    round: str = Field(description="folder in the history, or `under study`")
    method: str
    total: int | None = Field(description="K, the labels that went into its update")


class RoundLeftOut(_Part):
    """A round the client took part in that did not, and why."""

    round: str
    code: str | None = Field(description="of the error it ended with, if it did")
    reason: str | None = Field(description="in words; null when redacted, as it may name files")


class Agreement(_Part):
    """Whether the rounds can have come from the same labels."""

    chi_square: float
    degrees: int
    p_value: float = Field(description="how often rounds of the same labels differ as much")
    variance_inflation: float = Field(
        description="factor on the rounds' own part of the covariance (Birge ratio), >= 1"
    )
    widened: float = Field(description="`variance_inflation`, under its name up to 1.2")


class JointMetrics(_Part):
    """Σ min(found, true) of the shares over the rounds used, and that of a uniform guess."""

    iacc: float
    floor_iacc: float


class Joint(_Part):
    """The client's label shares from all its rounds at once; none where under two can be used."""

    shares: list[JointShare]
    rounds: list[RoundUsed]
    left_out: list[RoundLeftOut]
    agreement: Agreement | None
    metrics: JointMetrics | None
    notes: list[str]


class Expected(_Part):
    """How well the method does on virtual clients of this model, whose labels are known."""

    method: str
    virtual_clients: int
    iacc: float = Field(description="to expect of a real client, with its own number of images")
    iacc_error: float | None = Field(description="standard error of the mean")
    iacc_measured: float = Field(description="on the virtual clients, which have fewer images")
    cacc: float = Field(description="on the virtual clients")
    floor_iacc: float = Field(description="of a uniform guess on them")
    present_held: list[int] | None = Field(description="classes with labels: held, of how many")
    absent_held: list[int] | None = Field(description="classes without: held, of how many")
    width: float | None = Field(description="mean width of an interval as a share of K")
    upper_estimate: bool = Field(
        description="it is not known how well the model fits its clients' images"
    )


class Calibration(_Part):
    """What `rlu calibrate` found."""

    schema_version: str = SCHEMA_VERSION
    tool: str
    version: str
    created: str = Field(description="UTC, ISO 8601")
    environment: dict[str, str]
    seed: int
    inputs: dict[str, Input]
    settings: dict[str, SettingValue]
    expected: list[Expected]


class ExplanationPart(_Part):
    """The mistake that explains the evidence better than the given settings do."""

    name: str
    gain: float = Field(description="by which it beats the settings, in units of -2 log likelihood")
    text: str
    advice: str


class Report(_Part):
    """One client's update, read. `result` and `metrics` are those of the first method to answer."""

    schema_version: str = SCHEMA_VERSION
    tool: str
    version: str
    created: str = Field(description="UTC, ISO 8601")
    environment: dict[str, str]
    seed: int
    redacted: bool
    inputs: dict[str, Input]
    settings: dict[str, SettingValue]
    local_training: dict[str, SettingValue] = Field(
        description="learning rate, batch size, steps and samples as the attack used them"
    )
    output_layer: OutputLayer
    hypotheses: list[Hypothesis] = Field(description="candidates, best fit first")
    readings: list[Hypothesis] = Field(description="`hypotheses`, under its name up to 1.2")
    assumptions: list[str]
    result: Result
    verdict: VerdictPart | None = Field(None, description="that of the first method to answer")
    metrics: Metrics | None
    diagnostics: dict[str, Any]
    warnings: list[Notice]
    explanation: ExplanationPart | None = Field(
        None, description="the likeliest mistake, where one fits better than the settings"
    )
    methods: list[MethodResult]
    expected: Expected | None = Field(
        None, description="of the method that gave `result`, with --virtual-clients"
    )
    joint: Joint | None = Field(None, description="over several rounds, where they were asked for")
