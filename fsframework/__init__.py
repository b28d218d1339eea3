"""A plugin framework for face swapping: recipes assemble components from plugins.

    import fsframework as fsf

    swapper = fsf.load_swapper()
    swapper.swap("anna.jpg", "group.jpg", faces="largest").save("out.jpg")

`fsf.__all__` is the public interface: docs/python.md shows how it is used, plugins/README.md how plugins use it. Names
are loaded at first use, so importing the package imports no torch.
"""

from typing import TYPE_CHECKING

import pluggy

from fsframework.utils.lazy import attach

hookimpl = pluggy.HookimplMarker("fsframework")

if TYPE_CHECKING:  # for type checkers and editors; `attach` reads the names from here
    __all__: list[str]
    from fsframework.api.components import ComponentDetails as ComponentDetails
    from fsframework.api.components import ComponentInfo as ComponentInfo
    from fsframework.api.components import component_class as component_class
    from fsframework.api.components import create_component as create_component
    from fsframework.api.components import describe_component as describe_component
    from fsframework.api.components import find_kind as find_kind
    from fsframework.api.components import is_standalone as is_standalone
    from fsframework.api.components import list_components as list_components
    from fsframework.api.components import new_plugin as new_plugin
    from fsframework.api.components import recipe_schema as recipe_schema
    from fsframework.api.data import extract as extract
    from fsframework.api.evaluation import Comparison as Comparison
    from fsframework.api.evaluation import EvaluationResult as EvaluationResult
    from fsframework.api.evaluation import Measurement as Measurement
    from fsframework.api.evaluation import compare as compare
    from fsframework.api.evaluation import evaluate as evaluate
    from fsframework.api.evaluation import measure_standalone as measure_standalone
    from fsframework.api.models import check_recipe as check_recipe
    from fsframework.api.models import export_model as export_model
    from fsframework.api.models import list_models as list_models
    from fsframework.api.models import load_recipe as load_recipe
    from fsframework.api.swapping import SwappedImage as SwappedImage
    from fsframework.api.swapping import SwapPipeline as SwapPipeline
    from fsframework.api.swapping import load_swapper as load_swapper
    from fsframework.api.training import TrainingResult as TrainingResult
    from fsframework.api.training import train as train
    from fsframework.core.bases import ClosedSetGenerator as ClosedSetGenerator
    from fsframework.core.bases import DatasetWrapper as DatasetWrapper
    from fsframework.core.bases import LandmarkEstimator as LandmarkEstimator
    from fsframework.core.bases import timm_network as timm_network
    from fsframework.core.components import AttributeEncoder as AttributeEncoder
    from fsframework.core.components import Benchmark as Benchmark
    from fsframework.core.components import ComponentOptions as ComponentOptions
    from fsframework.core.components import Dataset as Dataset
    from fsframework.core.components import Detector as Detector
    from fsframework.core.components import Estimator as Estimator
    from fsframework.core.components import Generator as Generator
    from fsframework.core.components import IdentityEncoder as IdentityEncoder
    from fsframework.core.components import Loss as Loss
    from fsframework.core.components import MetricInfo as MetricInfo
    from fsframework.core.components import Model as Model
    from fsframework.core.components import Refiner as Refiner
    from fsframework.core.errors import EmptySplitError as EmptySplitError
    from fsframework.core.errors import UserError as UserError
    from fsframework.core.part import Part as Part
    from fsframework.core.part import part as part
    from fsframework.core.part import use as use
    from fsframework.core.swapper import Swapper as Swapper
    from fsframework.core.types import AlignedFace as AlignedFace
    from fsframework.core.types import Face as Face
    from fsframework.core.types import FaceBatch as FaceBatch
    from fsframework.core.types import Sample as Sample
    from fsframework.core.types import SwapBatch as SwapBatch
    from fsframework.core.types import SwapResult as SwapResult
    from fsframework.data.extract_faces import ExtractOptions as ExtractOptions
    from fsframework.faces.align import align as align
    from fsframework.faces.align import crop_box as crop_box
    from fsframework.faces.align import fit_similarity as fit_similarity
    from fsframework.faces.align import template as template
    from fsframework.faces.align import transform as transform
    from fsframework.faces.color_transfer import match_boundary_color as match_boundary_color
    from fsframework.faces.color_transfer import match_histogram as match_histogram
    from fsframework.faces.color_transfer import poisson_blend as poisson_blend
    from fsframework.faces.color_transfer import reinhard_transfer as reinhard_transfer
    from fsframework.faces.paste import PasteOptions as PasteOptions
    from fsframework.inference.face_swapper import SourceIdentity as SourceIdentity
    from fsframework.inference.jobs import AssignmentFiles as AssignmentFiles
    from fsframework.inference.jobs import SwapOptions as SwapOptions
    from fsframework.inference.jobs import pairs_jobs as pairs_jobs
    from fsframework.inference.jobs import target_jobs as target_jobs
    from fsframework.media.image_io import read_image as read_image
    from fsframework.media.image_io import write_image as write_image
    from fsframework.media.tensor import to_images as to_images
    from fsframework.media.tensor import to_tensor as to_tensor
    from fsframework.media.video_encoder import VideoOptions as VideoOptions
    from fsframework.models.run_status import run_status as run_status
    from fsframework.ops.conv import Conv2d as Conv2d
    from fsframework.ops.instance_norm import instance_norm as instance_norm
    from fsframework.ops.precision import without_autocast as without_autocast
    from fsframework.ops.upsample import upsample2x as upsample2x
    from fsframework.provenance.options import ProvenanceOptions as ProvenanceOptions
    from fsframework.provenance.verify import verify as verify
    from fsframework.recipe.schema import Recipe as Recipe
    from fsframework.utils.files import cache_folder as cache_folder
    from fsframework.utils.files import package_file as package_file
    from fsframework.utils.files import replacing as replacing
    from fsframework.utils.progress import progress as progress
    from fsframework.utils.progress import tracked as tracked
    from fsframework.utils.weights import below as below
    from fsframework.utils.weights import fill as fill
    from fsframework.utils.weights import fill_published as fill_published
    from fsframework.utils.weights import load_state as load_state
else:
    __getattr__, __dir__, __all__ = attach(__name__, __file__)
    __all__ = ["hookimpl", *__all__]
