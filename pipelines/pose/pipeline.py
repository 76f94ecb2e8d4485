"""The public class of 3-D pose: joints of images to bodies in space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pipelines.base import Evaluation
from pipelines.data.formats.pose_source import PoseReading
from pipelines.errors import ConfigError
from pipelines.fitted import FittedPipeline
from pipelines.model_list import check_attention
from pipelines.pose.options import (
    MODELS,
    TRAINING,
    ArchOptions,
    MotionOptions,
    SplitOptions,
    ViewOptions,
    architecture,
    check_values,
)
from pipelines.training.options import TrainOptions
from pipelines.values import as_options

if TYPE_CHECKING:
    from pipelines.pose.converting import Converted
    from pipelines.pose.engine import Fitted  # noqa: F401 - the state named below
    from pipelines.pose.result import Poses
    from pipelines.pose.streaming import LivePoses

__all__ = ["PoseLifter"]


class PoseLifter(FittedPipeline["Fitted"]):
    """Lift the 2-D joints that a detector found to 3-D poses: in metres, relative to the hip, in the camera's axes.

    ConvFormer: the joints of each frame, then the frames of a window, are mixed by learned mixtures of convolutions in
    the place of linear maps to queries, keys and values. Keypoints of COCO, OpenPose, MediaPipe, MMPose, VideoPose3D,
    CSV and arrays are read; motion capture (BVH, C3D, ASF/AMC) is learned from, seen by random cameras. Missing joints
    are carried by a mask; nothing is converted, resampled or mirrored unsaid.

    Args:
        model: convformer.
        frames: length of a window, odd; its centre frame is lifted.
        fps: frame rate of the model, Hz; clips of another one are resampled.
        attention: any mechanism for sequences in the place of dynamic_conv (softmax: PoseFormer's shape).
        arch: size and shape of the model (an ArchOptions, or a dict of its fields).
        read: how files of joints are read (a PoseReading, or a dict).
        motion: how motion is made more while training (a MotionOptions, or a dict).
        views: cameras and noise (a ViewOptions, or a dict).
        split: what is learned from and measured on (a SplitOptions, or a dict).
        focal: focal length in px of the camera of what is lifted; with it the root's place is told too.
        detections: whose joints of Human3.6M's images are used: NAME of data_2d_h36m_NAME.npz (gt, cpn_ft_h36m_dbb);
            by default exact projections.
        train: how the model is fitted (a TrainOptions, or a dict of its fields).
        device: auto, cpu, cuda, cuda:N or mps.
        precision: 32-true, bf16-mixed, 16-mixed or 64-true.
        seed: of weights, windows, cameras, noise and splits.
        threads: CPU threads; default what torch takes.

    Raises:
        ConfigError: when used, for a model or option that does not exist.

    Example:
        >>> PoseLifter(frames=27).frames
        27
    """

    domain: ClassVar[str] = "pose"
    engine: ClassVar[str] = "pipelines.pose.engine"
    summary: ClassVar[str] = "Lift 2-D joints (COCO, OpenPose, MediaPipe, MMPose, CSV) to 3-D poses."
    verbs: ClassVar[Mapping[str, str]] = {"convert": "convert", "stream": "stream"}
    streams: ClassVar[Mapping[str, str]] = {"stream": "pipelines pose fit --data MOTION -o model/"}
    endings: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "predict": (".npz", ".json", ".csv", ".bvh", ".gif", ".mp4"),
        "convert": (".npz", ".json", ".csv", ".bvh"),
        "stream": (".npz",),
    }
    together: ClassVar[frozenset[str]] = frozenset({"predict", "convert"})
    call_time: ClassVar[frozenset[str]] = frozenset(
        {"read", "motion", "views", "split", "focal", "detections", "train"}
    )

    def __init__(
        self,
        *,
        model: str = "convformer",
        frames: int = 9,
        fps: float = 30.0,
        attention: str | None = None,
        arch: ArchOptions = ArchOptions(),  # noqa: B008 - frozen
        read: PoseReading = PoseReading(),  # noqa: B008 - frozen
        motion: MotionOptions = MotionOptions(),  # noqa: B008 - frozen
        views: ViewOptions = ViewOptions(),  # noqa: B008 - frozen
        split: SplitOptions = SplitOptions(),  # noqa: B008 - frozen
        focal: float | None = None,
        detections: str | None = None,
        train: TrainOptions = TRAINING,
        device: str = "auto",
        precision: str = "32-true",
        seed: int = 2021,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.frames = frames
        self.fps = fps
        self.attention = attention
        self.arch = as_options(ArchOptions, arch, "arch")
        self.read = as_options(PoseReading, read, "read")
        self.motion = as_options(MotionOptions, motion, "motion")
        self.views = as_options(ViewOptions, views, "views")
        self.split = as_options(SplitOptions, split, "split")
        self.focal = focal
        self.detections = detections
        self.train = as_options(TrainOptions, train, "train")
        self.device = device
        self.precision = precision
        self.seed = seed
        self.threads = threads

    def fit(self, data: Any) -> Self:
        """Learn from motion in space, seen by random cameras; from Human3.6M by its protocol and its own cameras.

        Args:
            data: a name of the catalogue, a file or folder of motion capture, CMU's folder or archive, arrays (T, J, 3)
                or clips; or a folder with data_3d_h36m.npz and cameras.json.

        Raises:
            InputError: nothing that is motion in space.
            ConfigError: an option that does not exist or does not fit.
        """
        from pipelines.pose.engine import fit
        from pipelines.pose.protocols import fit_human36m, human36m

        self._check()
        self.start_torch()
        folder = human36m(data)
        self._state, self._fitted = fit(self, data) if folder is None else fit_human36m(self, folder), True
        return self

    def predict(self, inputs: Any) -> Poses:
        """The 3-D pose of every frame of every person, with how far each joint may be off.

        Args:
            inputs: keypoint files, folders, arrays (T, J, 2), clips, or a list of these.

        Raises:
            InputError: nothing that is joints of images.
        """
        from pipelines.pose.predict import predict

        self._ready("predict")
        return predict(self, inputs)

    predict.fits_itself = True  # type: ignore[attr-defined]

    def convert(
        self, inputs: Any, to: str | None = None, form: Literal["npz", "json", "csv", "bvh"] = "npz"
    ) -> Converted:
        """Read joints of any format, 2-D or 3-D, and write them in another, on another skeleton where one is named.

        Args:
            inputs: files of joints or motion capture, folders, arrays, clips, or a list of these.
            to: the skeleton: h36m17, coco17, coco18, body25, halpe26, mpi17, humaneva15 or deepmimic15, as far as a
                table leads there; by default each file's own.
            form: kind of the files where the output is a folder.

        Raises:
            InputError: nothing that is joints, no such skeleton or no way to it.
        """
        from pipelines.pose.converting import convert

        return convert(self, inputs, to, form)

    convert.fits_itself = True  # type: ignore[attr-defined]

    def stream(self, *, delay: int | None = None, follow: bool = False, realtime: bool = False) -> LivePoses:
        """Lift joints while they arrive: frames one by one in, poses some frames later out, in constant memory.

        The result takes frames (``push``), an iterable of them (``run``), or a whole source (``events``). The frame
        rate of the source is told by ``read.fps``, else taken to be the model's; another one is resampled.

        Args:
            delay: frames from a frame to its answer; by default half of the model's window, where answers are those of
                predict; fewer: sooner, but less exact.
            follow: wait for more lines at the end of a file that still grows, until interrupted.
            realtime: take files at the pace at which their frames were seen.

        Raises:
            ConfigError: nothing is fitted and no weights ship for these arguments; a delay that does not exist.
        """
        from pipelines.pose.streaming import LivePoses

        self._ready("stream")
        return LivePoses(self, delay=delay, follow=follow, realtime=realtime)

    stream.takes = (  # type: ignore[attr-defined]
        "`-` for standard input, files with a frame of joints a line (.jsonl, .csv), or whole files that predict reads"
    )

    def evaluate(self, data: Any) -> Evaluation:
        """Measure on motion that was not learned from, beside the linear lifter and the mean pose.

        Args:
            data: as :meth:`fit`.
        """
        from pipelines.pose.evaluation import evaluate

        self._ready("evaluate")
        return evaluate(self, data)

    def demo(self) -> tuple[Evaluation, Poses]:
        """Measure on the embedded motions that the model has not seen, and lift one of them."""
        from pipelines.pose.material import identity, motion_of, view_of

        self._ready("demo")
        clips, _ = motion_of(self, "demo")
        known = {*self.state.trained.tolist(), *self.state.held.tolist()}
        fresh = [clip for clip in clips if identity(clip) not in known] or clips
        return self.evaluate("demo"), self.predict(view_of(self, fresh[0], 0).joints)

    @classmethod
    def from_official(cls, path: str | Path, **params: Any) -> Self:
        """Refuse: neither code nor weights of the paper were released.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("no weights of this paper were ever released", where=path, cure="fit a model")

    @classmethod
    def check_kit(cls) -> dict[str, Any]:
        """A short run on three embedded motions."""
        from pipelines.pose.material import motion_of, view_of

        lifter = cls()
        clips = motion_of(lifter, "demo")[0][:3]
        params = {
            "frames": 3,
            "arch": ArchOptions(dim=8, spatial_layers=1, temporal_layers=1, kernels=(3,), heads=2),
            "motion": MotionOptions(windows=64),
            "views": ViewOptions(cameras=1),
            "split": SplitOptions(share=0.34, valid=0.0),
            "train": TrainOptions(epochs=1, batch_size=32, patience=0),
        }
        return {"params": params, "data": clips, "inputs": view_of(lifter, clips[2], 0).joints}

    def shipped_name(self) -> str | None:
        """The model that ships, where nothing about it is changed."""
        usual = self.model == "convformer" and self.attention in (None, "dynamic_conv") and self.arch == ArchOptions()
        return f"convformer_{self.frames}" if usual and self.fps == 30.0 else None

    def _check(self) -> None:
        architecture(self.model, self.arch)
        check_values(self.frames, self.fps, self.motion, self.views, self.split)
        check_attention(MODELS, self.model, self.attention)
        if self.focal is not None and not self.focal > 0:
            raise ConfigError("no focal length", where="focal", found=self.focal, expected="px above 0")
        self.train.validate()
