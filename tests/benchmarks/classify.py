"""Text evidence for many items: ``python -m tests.benchmarks.classify [CORPUS] [--items 10000]``.

One process, one thread. Without a corpus folder capgap's own exercises are asked over and over. Prints seconds, loading
included, and items per second.
"""

import argparse
import time


def main() -> None:
    """Read items, then time what a user waits for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--items", type=int, default=10_000)
    asked = parser.parse_args()
    from capgap.classification.corpus import read_corpus
    from capgap.classification.exercises import make_exercise_families

    families = read_corpus(asked.corpus) if asked.corpus else make_exercise_families()
    # Families in turn, so that long items are there in their share and no family fills the list.
    questions = [
        family.questions[n % len(family.questions)]
        for n in range(asked.items // len(families) + 1)
        for family in families
    ][: asked.items]
    begin = time.perf_counter()
    from capgap.classification.text_model import TextModel

    model = TextModel.load_shipped_model()
    loaded = time.perf_counter()
    found = model.evidence(questions)
    end = time.perf_counter()
    characters = sum(len(question.text) for question in questions) / len(questions)
    print(
        f"{len(found):,} items of {characters:.0f} characters: {end - begin:.2f} s, loading {loaded - begin:.2f};"
        f" {len(found) / (end - begin):,.0f} items per second"
    )


if __name__ == "__main__":
    main()
