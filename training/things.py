"""The things that pictures show, and the words for them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

THINGS_FILE = Path(__file__).with_name("things.tsv")


@dataclass(frozen=True)
class Thing:
    """One concrete thing.

    Attributes:
        emoji: its Unicode character, which finds its drawings.
        phrase: its name with the article that English wants: `a red apple`, `grapes`.
        chinese: its Chinese name, less what CLDR says of the way it is drawn.
    """

    emoji: str
    phrase: str
    chinese: str

    @property
    def is_plural(self) -> bool:
        """Whether it goes with `are`, as nouns without an article do here."""
        return not self.phrase.startswith(("a ", "an ")) and self.phrase.endswith("s")

    @property
    def name(self) -> str:
        """The phrase without its article: `red apple`."""
        return self.phrase.removeprefix("a ").removeprefix("an ")

    @property
    def head(self) -> str:
        """The last word of the phrase: `ball` for `a tennis ball`."""
        return self.phrase.rsplit(" ", 1)[-1]


@cache
def load_things() -> tuple[Thing, ...]:
    """Reads the list of things, one `emoji<TAB>phrase<TAB>Chinese name` a line."""
    lines = THINGS_FILE.read_text(encoding="utf-8").splitlines()
    return tuple(Thing(*line.split("\t")) for line in lines)
