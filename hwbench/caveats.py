"""Doubts that travel with a number. One table: code → the sentence, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Caveat:
    """A doubt that travels with a number: a stable code, a sentence, and what to do about it."""

    code: str
    text: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        return {"code": self.code, "text": self.text, "remedy": self.remedy}


CAVEATS: dict[str, tuple[str, str]] = {
    "precision_not_met": (
        "The anchored figure's 95 % interval is ±{half_width} after {sessions} sessions; the preset wanted ±{wanted}.",
        "{needed}",
    ),
    "few_sessions": (
        "{sessions} sessions are too few for an interval.",
        "Measure at least three (--preset quick does).",
    ),
    "not_steady": (
        "{count} of {sessions} sessions did not reach a steady state while warming up.",
        "Look at the session series in the report; a quieter machine or --preset rigorous may settle it.",
    ),
    "budget_cut": (
        "Sessions have as few as {samples} samples because one inference takes {latency}.",
        "Use --preset default or rigorous for more.",
    ),
    "summary_only": (
        "Each of {blocks} blocks is known by one value, the tool's own summary; they hold {runs} inferences in all.",
        "Medians and their intervals hold; percentiles need a runtime of the device's Python.",
    ),
    "drift": (
        "Latency drifted by {drift} within a session.",
        "Something warms up or another program starts; the anchored figure corrects what the anchor sees.",
    ),
    "disturbed": (
        "Others took the CPU: {switches} involuntary switches over {blocks} blocks, {repeated} blocks repeated.",
        "Close other programs; compare the anchored figure rather than the raw one.",
    ),
    "off_reference": (
        "The machine ran {offset} {direction} than when its anchor's reference was made.",
        "The anchored figure's interval is wider for it: measure again when the machine is nearer. Quote it within "
        "this target, the raw one across targets.",
    ),
    "anchor_not_used": (
        "The anchored figure equals the raw one: {why}.",
        "Nothing to do; repeat on another day to see the machine's own variation.",
    ),
    "bimodal": (
        "Sessions fall into groups up to {spread} apart.",
        "Memory layout or the machine's state differs between processes; more sessions average over it.",
    ),
    "outliers": (
        "{count} of {samples} samples lie more than ten robust standard deviations above the median; all were kept.",
        "They do not move medians; look for periodic work on the device if tails matter.",
    ),
    "profiler_heavy": (
        "Profiling made the model {ratio} as slow; shares of short layers are uncertain.",
        "Trust groups of layers more than single short ones.",
    ),
    "layers_not_ranked": (
        "Profiling made the model {ratio} as slow, more than twice: its layers are not ranked.",
        "Use the un-profiled total; a larger input or batch makes layers longer.",
    ),
    "closure": (
        "Corrected layers add up to {ratio} of the un-profiled latency.",
        "Measure it again when the machine is quieter. The residual is shown as a row of its own; do not scale layers "
        "up to hide it.",
    ),
    "below_resolution": (
        "{count} of {layers} layers are shorter than the profiler resolves; together they are {share} of the latency.",
        "Read them as a group.",
    ),
    "no_module_path": (
        "{share} of layer time carries no module path.",
        "Export from a torch module, or name the nodes of the file.",
    ),
    "no_layers": (
        "This target gives no per-layer time: {why}.",
        "Use another runtime for layers; the totals hold.",
    ),
    "precision_changed": (
        "The runtime ran {effective} although {asked} was asked for.",
        "Compare only with numbers of the same effective precision.",
    ),
    "fallback_provider": (
        "Part of the model ran on {provider}.",
        "Check which operators the wanted provider lacks.",
    ),
    "gpu_shared": (
        "Up to {count} other processes were on the GPU when a session began.",
        "End them (nvidia-smi lists them), or compare only with numbers that were taken beside them.",
    ),
    "gpu_unwatched": (
        "Nobody saw whether the GPU was throttled or shared: {why}.",
        "{remedy}",
    ),
    "oversubscribed": (
        "{threads} threads share {processors}, so they wait for one another.",
        "Ask for @{available} at most, or for the processors that the device's profile, cpuset or quota keeps back.",
    ),
    "throttled": (
        "The device throttled while it was measured: {why}.",
        "Cool it, or lift the quota; or report the figure as sustained latency.",
    ),
    "environment_changed": (
        "Sessions differ in {fields}.",
        "Measure again under one set of conditions; these do not belong into one number.",
    ),
    "old_sessions": (
        "{count} of {sessions} sessions of the {name} pass were taken up to {age} before {than}.",
        "The machine may have been another then: measure all of them anew, with --fresh or without --resume.",
    ),
    "references_differ": (
        "Its sessions are anchored at different references ({references}); the anchored figure is at none of them.",
        "Measure all of them anew (--fresh, or without --resume), or quote the raw figure.",
    ),
    "batches_differ": (
        "An inference of {b} has {batch_b} inputs and one of {a} {batch_a}; the ratio is of whole inferences.",
        "Divide by the batch to compare how many inputs a second they take.",
    ),
    "band_over_limit": (
        "B is more than {limit} slower, and yet --fail-if does not hold: differences within ±{band} count as none.",
        "Give --band the share of --fail-if; without it, the band is the larger of 1 % and twice the noise floor.",
    ),
    "random_weights": (
        "The weights are random; latency is assumed to be that of trained ones.",
        "Measure with --pretrained where weights can be downloaded.",
    ),
    "pass_failed": (
        "The {name} pass failed: {why}",
        "{remedy} What the other passes measured holds; --passes {name} tries it again.",
    ),
    "zero_macs": (
        "The model has no multiply-accumulates: a constant or empty graph.",
        "Check that the export kept the network.",
    ),
}


def caveat(code: str, **values: Any) -> Caveat:
    """The caveat of a code with its values filled in. Raises KeyError for a code or a value that is missing."""
    text, remedy = CAVEATS[code]
    return Caveat(code, text.format(**values), remedy.format(**values))
