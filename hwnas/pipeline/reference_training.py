"""Trains reference networks on the images of a run by the winner's recipe.

Part of stage `references`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hwnas.core.errors import UserError
from hwnas.core.progress import Progress
from hwnas.core.store import write_bytes
from hwnas.measure.references.graphs import architecture
from hwnas.measure.references.settings import ReferencesConfig
from hwnas.measure.references.timing import TrainedReference
from hwnas.pipeline.project import Project
from hwnas.pipeline.tuning import Tuning
from hwnas.pipeline.winners import result_on
from hwnas.spaces.lowering import resolution
from hwnas.training.sections import FinetuneConfig

if TYPE_CHECKING:
    import torch

__all__ = ["recipe", "require_weights", "train_references", "trained_px"]


def recipe(project: Project, config: ReferencesConfig) -> FinetuneConfig:
    """The winner's recipe, without the parts that need a network of the space.

    For fresh weights, it has the epochs of section `alone` and no distillation. `config.epochs`
    has priority over both.
    """
    # both need a network of the space, as int8 does
    changes: dict[str, Any] = {"auxiliary": 0.0, "feature_distillation": 0.0}
    if project.config.finetune.precision == "int8":
        changes["precision"] = "fp32"
    if config.start == "scratch":
        changes |= {"epochs": project.config.alone.epochs, "distillation": 0.0}
    if config.epochs is not None:
        changes["epochs"] = config.epochs
    return project.config.finetune.model_copy(update=changes)


def require_weights(project: Project, config: ReferencesConfig) -> None:
    """Checks that the weights of the references to train are available or can be downloaded.

    A dry run downloads nothing; it only checks that the weights are published.

    Raises:
        UserError: names the weights, and how to get them.
    """
    from hwnas.nets.hub import cached_file, fetched_file

    for name in config.train if config.start == "published" else ():
        if cached_file(name) is None and not project.is_plan:
            fetched_file(name)


def trained_px(project: Project) -> int:
    """Resolution at which references are trained: that of the winner on the first device."""
    return resolution(project.space, result_on(project, project.first_device).winner.arch)


def train_references(
    project: Project, config: ReferencesConfig, progress: Progress
) -> tuple[TrainedReference, ...]:
    """Trains the networks `config.train` at the winner's resolution; stores each when it is done.

    Returns their accuracies on the test split.
    """
    return tuple(_trained(project, config, progress))


def _trained(
    project: Project, config: ReferencesConfig, progress: Progress
) -> Iterator[TrainedReference]:
    from hwnas.training.checkpoint import weights_bytes
    from hwnas.training.evaluate import EVAL_BATCH, evaluate
    from hwnas.training.finetune import finetune
    from hwnas.training.images import resize
    from hwnas.training.precision import place
    from hwnas.training.standalone import images_seen

    files, how, data = project.files.references, recipe(project, config), project.data
    px, teacher = trained_px(project), None
    for n, name in enumerate(config.train):
        if (known := files.trained(name).read_if_there()) is not None:
            yield known
            continue

        def show(done: int, total: int, note: str = "", n: int = n, name: str = name) -> None:
            progress(n * total + done, len(config.train) * total, f"{name}, {note}")

        if how.has_teacher and teacher is None:
            teacher = Tuning(project).teacher
        network = _network(project, config, name)
        place(network, project.accelerator)
        tuned = finetune(
            network,
            data,
            how,
            px=px,
            teacher=teacher,
            seed=project.config.seed,
            checkpoints=files.steps(name),
            progress=show,
        )
        images = data.eval_batches("test", EVAL_BATCH)
        score = evaluate(tuned, ((resize(x, px), y) for x, y in images))
        write_bytes(files.weights(name), weights_bytes(tuned, {"network": architecture(name)}))
        found = TrainedReference(
            name, px, config.start, score.top1, score.n_images, images_seen(data, how)
        )
        files.trained(name).write(found)
        yield found


def _network(project: Project, config: ReferencesConfig, name: str) -> torch.nn.Module:
    """A network of timm with a new classifier for the images of the run.

    Raises:
        UserError: the published weights are missing, or do not fit.
    """
    from timm.models import adapt_input_conv

    from hwnas.nets.from_timm import timm_network
    from hwnas.nets.hub import fetched_file
    from hwnas.nets.pretrained_source import read_weights

    in_channels, num_classes = project.source.ends
    network: Any = timm_network(
        name, seed=project.config.seed, num_classes=num_classes, in_chans=in_channels
    )
    if config.start == "scratch":
        return network  # type: ignore[no-any-return]
    file, own, facts = fetched_file(name), network.state_dict(), network.pretrained_cfg
    tensors = read_weights(file)
    classifiers, firsts = (
        (v,) if isinstance(v, str) else tuple(v) for v in (facts["classifier"], facts["first_conv"])
    )
    for key in own:
        if key.rpartition(".")[0] in classifiers:
            continue
        found = tensors.get(key)
        if found is not None and key.rpartition(".")[0] in firsts and key.endswith("weight"):
            found = adapt_input_conv(in_channels, found)
        if found is None or found.shape != own[key].shape:
            raise UserError(
                f"the published weights do not fit timm's {name}",
                expected=f"a tensor {key} of shape {list(own[key].shape)}",
                found="no such tensor" if found is None else f"shape {list(found.shape)}",
                where=file,
                fix="remove the file, so that it is downloaded again, or install the timm version"
                " for which it was published",
            )
        own[key] = found
    network.load_state_dict(own)
    return network  # type: ignore[no-any-return]
