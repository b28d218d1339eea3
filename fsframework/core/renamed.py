"""Earlier names of modules, classes, methods and recipe keys, for error messages with the present name.

These tables are no aliases: code and recipes with an earlier name fail with a one-line error.
"""

MODULES = {
    "alignment": "faces.align",
    "backbones": "core.bases",
    "blending": "faces.color_transfer",
    "components": "core.components",
    "convolution": "ops.conv",
    "cuda_graph": "training.cuda_graph",
    "doubling": "ops.upsample",
    "environment": "utils.environment",
    "errors": "core.errors",
    "files": "utils.files",
    "hookspecs": "core.hookspecs",
    "images": "media.image_io",
    "instance_norm": "ops.instance_norm",
    "landmarks": "core.bases",
    "memory": "ops.allocator",
    "native": "ops.csrc.build",
    "native_gpu": "ops.triton.launch",
    "optimizers": "training.optim",
    "pairs": "data.collate",
    "people": "core.bases",
    "plugins": "core.part",
    "precision": "ops.precision",
    "progress": "utils.progress",
    "testing_samples": "testing.samples",
    "types": "core.types",
    "video": "media.video_io",
    "weights": "utils.weights",
    "wrapping": "core.bases",
}

NAMES = {
    "Batch": "SwapBatch",
    "Faces": "FaceBatch",
    "Figure": "MetricInfo",
    "FromLandmarks": "LandmarkEstimator",
    "KNOWN": "IdentityEncoder.match_threshold",
    "PeopleGenerator": "ClosedSetGenerator",
    "Wrapping": "DatasetWrapper",
    "cloned": "poisson_blend",
    "equalised": "match_histogram",
    "fading": "mask_edge",
    "match_edge": "match_boundary_color",
    "recoloured": "reinhard_transfer",
    "keep_memory": "retain_freed_memory",
    "doubled": "upsample2x",
}

ATTRIBUTES = {  # by base class
    "Generator": {"enrol": "enroll", "knows": "supports"},
    "Dataset": {"seen": "is_closed_set", "neighbour": "next_frame", "swapped": "ground_truth_swap"},
    "Benchmark": {
        "figures": "metrics",
        "alone": "standalone",
        "forward": "measure_batch(batch, swap, faces)",
        "itself": 'pairing = "self"',
        "partners": 'pairing = "same_identity"',
    },
}

COMPONENTS = {"hardest": "hard-examples"}

KEYS = {  # keys of recipes and options of components
    "embeddings": "precompute_embeddings",
    "free_gradients": "optimizer_in_backward",
    "full": "full_resolution",
    "matching": "feature_matching_weight",
    "most": "max_channels",
    "of": "target",
    "over": "region",
    "record": "cuda_graph",
    "recorded": "cuda_graph",
    "recompute": "activation_checkpointing",
    "restore": "error_gate",
}


def present_module(name: str) -> str | None:
    """Return the present name of a module with the earlier name `name`, such as fsframework.components, or None."""
    new = MODULES.get(name.removeprefix("fsframework."))
    return None if new is None else f"fsframework.{new}"


def present_key(key: str, keys: list[str]) -> str | None:
    """Return which of `keys`, the valid ones, has the earlier name `key`, or None."""
    new = KEYS.get(key)
    if key == "of" and "network" in keys:
        return "network"
    return new if new in keys else None
