"""All that a report shows, and the one HTML file that shows it."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lib.output.reader import Output
from lib.report.charts import Chart, age_distribution, age_pyramid, confidence, faces_per_image
from lib.report.colours import DARK, LIGHT, Theme
from lib.report.doubts import BLURRED, CHOICES, MINOR, UNCERTAIN, Doubts
from lib.report.facts import FactGroup, facts, terms_of_model
from lib.report.gallery import Item, shorten
from lib.report.label_statistics import LabelStatistics
from lib.report.picture import face_label, is_uncertain
from lib.scoring.schema import NO_FACE, OK, STATUSES
from lib.tasks.age_bands import AGE_BANDS
from lib.tasks.gender import GENDER, GENDERS

_HERE = Path(__file__).parent
_USE = (
    "These are guesses of a statistical model, each with its uncertainty. They describe an archive as a "
    "whole; they are not for decisions about individuals, and not for finding out who somebody is.",
    "A gender here is how faces that look so are labelled in data sets of this kind. It is not who "
    "somebody is. An age is what a face looks like to the model, not a date of birth.",
    "Models of this kind err more for small children, old people, faces turned away or badly lit, and "
    "for groups of people that were rare in their training. Look at the pictures before trusting a sum.",
    "This page holds pictures of people. Pass it on only to those who may see the archive itself.",
)


_DOUBTS = {UNCERTAIN: "Uncertain", BLURRED: "Blurred", MINOR: "Possibly minors"}


@dataclass(frozen=True)
class Figure:
    """A number in large letters."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Status:
    """A status and how many images have it.

    Attributes:
        name: of `lib.scoring.schema.STATUSES`.
        images: with this status.
        share: of all images, 0 to 1.
    """

    name: str
    images: int
    share: float

    @property
    def meaning(self) -> str:
        """What it says of an image."""
        return STATUSES.get(self.name, "")

    @property
    def is_error(self) -> bool:
        """Whether images with it could not be labelled."""
        return self.name not in (OK, NO_FACE)

    @property
    def share_words(self) -> str:
        """The share as a percentage that is 0 or 100 only where it is."""
        if 0 < self.share < 0.001:
            return "< 0.1%"
        if 0.999 < self.share < 1:
            return "> 99.9%"
        return f"{self.share:.1%}".replace(".0%", "%")


@dataclass(frozen=True)
class Errors:
    """A kind of error and some images that have it."""

    status: Status
    examples: Sequence[Item]


class Report:
    """What the template of the page asks for."""

    def __init__(self, output: Output, statistics: LabelStatistics, items: Sequence[Item]) -> None:
        """Draw the charts and put everything into words.

        Args:
            output: of the labelling.
            statistics: of all its rows.
            items: the sampled images, in the order of the gallery.
        """
        self._output, self._statistics = output, statistics
        self._doubts = Doubts.of(output)
        self.items = items
        self.facts: list[FactGroup] = facts(output)
        self.large_charts: list[Chart] = []
        self.small_charts: list[Chart] = []
        if statistics.faces:
            self.large_charts = [age_pyramid(statistics), age_distribution(statistics)]
            self.small_charts = [faces_per_image(statistics), *confidence(statistics)]

    @property
    def title(self) -> str:
        """The names of the folders that were labelled."""
        sources = self._output.sources
        names = [PurePosixPath(source).name or source for source in sources[:3]]
        more = ", …" if len(sources) > len(names) else ""
        return shorten(", ".join(names) + more, 120) or self._output.name

    @property
    def subtitle(self) -> str:
        """Of what, by what and when."""
        files = self._output.label_files()
        written = max((file.written for file in files), default=None)
        when = f", {datetime.fromtimestamp(written, UTC):%d %B %Y}" if written else ""
        images = f"{self._statistics.images:,} image{'s' * (self._statistics.images != 1)}"
        return f"{images} labelled by {self._output.fingerprint.get('model', 'a model')}{when}"

    @property
    def unfinished(self) -> str:
        """What is missing; empty where nothing is."""
        manifest = self._output.manifest()
        if manifest is None:
            return "The archive is still being listed."
        if self._statistics.images >= manifest.images:
            return ""
        return (
            f"The labelling has not come to its end: {self._statistics.images:,} of {manifest.images:,} "
            "images have been labelled. The same command goes on with it."
        )

    @property
    def headline(self) -> list[Figure]:
        """The first numbers to look at."""
        statistics = self._statistics
        images, faces = max(1, statistics.images), statistics.faces
        errors = sum(status.images for status in self.statuses if status.is_error)
        figures = [
            Figure("Images", f"{statistics.images:,}"),
            Figure(
                "With a face",
                f"{statistics.statuses[OK] / images:.0%}",
                f"{statistics.statuses[OK]:,} images",
            ),
            Figure("Faces", f"{faces:,}"),
        ]
        if faces:
            by_gender = dict(zip(GENDERS, statistics.ages.sum(axis=1), strict=True))
            figures += [
                Figure(f"Labelled {gender}", f"{n / faces:.0%}", f"{n:,} faces")
                for gender, n in by_gender.items()
            ]
            figures += [
                Figure(_DOUBTS[kind], f"{n / faces:.0%}", f"{n:,} faces")
                for kind, n in statistics.doubtful.items()
            ]
        return [*figures, Figure("Not readable", f"{errors / images:.0%}", f"{errors:,} images")]

    @cached_property
    def statuses(self) -> list[Status]:
        """All statuses that there are, the most frequent first."""
        total = max(1, self._statistics.images)
        return [Status(n, c, c / total) for n, c in self._statistics.statuses.most_common()]

    @property
    def errors(self) -> list[Errors]:
        """The kinds of error, with examples."""
        return [
            Errors(s, [i for i in self.items if i.row["status"] == s.name])
            for s in self.statuses
            if s.is_error
        ]

    @property
    def gallery_note(self) -> str:
        """What the gallery holds."""
        if len(self.items) == self._statistics.images:
            which = "All images"
        else:
            of_all = f"{len(self.items)} of {self._statistics.images:,} images"
            which = f"{of_all}, drawn at random for each status"
        return (
            f"{which}, by the age of the largest face, which is also what the filters go by. "
            "A click, or the enter key, shows the larger picture and its row."
        )

    @property
    def genders(self) -> list[str]:
        """Genders to choose from."""
        return [g for g in GENDERS if any(item.row[GENDER.name] == g for item in self.items)]

    @property
    def bands(self) -> list[str]:
        """Age bands to choose from."""
        return [band for band in AGE_BANDS if any(item.band == band for item in self.items)]

    @property
    def doubt_filters(self) -> list[str]:
        """Filters by doubts, where the labels tell."""
        return [name for name in CHOICES if self.doubts(name)]

    def doubts(self, name: str) -> list[str]:
        """What to choose from by that filter of `lib.report.doubts.CHOICES`."""
        return [
            words for words in CHOICES[name] if any(i.doubts[name] == words for i in self.items)
        ]

    @property
    def doubts_note(self) -> str:
        """What the words of these filters mean; empty where nothing is known."""
        notes, doubts = [], self._doubts
        if self.doubts("certainty") and str(doubts.rule):
            notes.append(f"Certain are faces with {doubts.rule}; others are drawn with dashes.")
        if self.doubts("minors") and doubts.point:
            notes.append(
                f"A minor is possible where the probability of being younger than {doubts.threshold} is "
                f"at least {doubts.point.cut:.3f}: below that lay {doubts.point.allowed:.0%} of the "
                "minors of the model's validation faces."
            )
        return " ".join(notes)

    @property
    def sampled_statuses(self) -> list[str]:
        """Statuses to choose from."""
        return [s.name for s in self.statuses if any(i.row["status"] == s.name for i in self.items)]

    @property
    def responsible_use(self) -> list[str]:
        """What the labels are not, and whose terms hold."""
        return [*_USE, *terms_of_model(self._output)]


def html(report: Report) -> str:
    """The page: one file that loads nothing, and that runs nothing but its own script."""
    return render(_HERE / "page.html.jinja", _HERE / "page.js", report=report)


def render(template: Path, script: Path | None, **values: Any) -> str:
    """Fill the template of a page, which escapes everything.

    Args:
        template: gets `style`, `script` and `policy`, besides the values.
        script: the only one that the page runs; None: it runs none.
        values: for the template.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "face_label": face_label,
        "gender_class": lambda face: "" if is_uncertain(face) else face[GENDER.name] or "",
        "words": lambda name: name.replace("_", " "),
    }
    style = _variables() + (_HERE / "page.css").read_text("utf-8")
    code = "" if script is None else script.read_text("utf-8")
    return environment.get_template(template.name).render(
        **values, style=Markup(style), script=Markup(code), policy=_policy(style, code)
    )


def _policy(style: str, script: str) -> str:
    """The content security policy: pictures from within the page, its style and script, nothing else."""
    return "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_sha256(style)}'",
            f"script-src '{_sha256(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ]
    )


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _variables() -> str:
    """The colours as variables of the style sheet."""
    return f":root{{{_colours(LIGHT)}}}@media(prefers-color-scheme:dark){{:root{{{_colours(DARK)}}}}}\n"


def _colours(theme: Theme) -> str:
    colours = asdict(theme)
    del colours["name"]
    return ";".join(f"--{name}:{value}" for name, value in colours.items())
