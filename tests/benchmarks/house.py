"""How the code stands: its size, its modules, its words; ``python -m tests.benchmarks.house [CHECKOUT …]``.

Counts are places to look, never verdicts. Several checkouts stand side by side.
"""

import ast
import io
import random
import statistics
import sys
import tokenize
from collections import Counter
from pathlib import Path

WORDS = ("told", "found", "said", "asked", "made", "own", "one", "kept", "heard", "names")
"""Variables that say nothing of what they hold; see `private_words`."""
ONE_LINE = 3
"""A scope of so many lines is a one-line scope: a comprehension, a lambda, a function that returns at once."""
_SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


def product_files(checkout: Path) -> list[Path]:
    """The Python files of the package, in order."""
    return sorted((checkout / "capgap").rglob("*.py"))


def code_lines(source: str) -> int:
    """Lines that hold code: without blank lines, comments and docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _SKIPPED and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            text = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):  # a docstring, of a field too
                lines -= set(range(statement.lineno, (statement.end_lineno or 0) + 1))
    return len(lines)


def comment_lines(source: str) -> int:
    """Lines with a comment."""
    return sum(token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(source).readline))


def private_words(tree: ast.AST) -> Counter[str]:
    """How often each of `WORDS` is bound outside scopes of `ONE_LINE`: assigned, a parameter or a loop's variable."""
    counts: Counter[str] = Counter()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            scoped = isinstance(child, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda))
            if scoped and (child.end_lineno or 0) - child.lineno < ONE_LINE:  # type: ignore[attr-defined]
                continue
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store) and child.id in WORDS:
                # `names` is a good name for names; whether it holds indices no script can tell.
                counts[child.id] += child.id != "names"
            elif isinstance(child, ast.arg) and child.arg in WORDS:
                counts[child.arg] += child.arg != "names"
            walk(child)

    walk(tree)
    return counts


def class_names(checkout: Path) -> dict[str, list[str]]:
    """Class name, without a leading underscore, to the files that define it."""
    where: dict[str, list[str]] = {}
    for path in product_files(checkout):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name.lstrip("_"), []).append(str(path.relative_to(checkout)))
    return where


def draw_names(checkout: Path, n: int = 20, seed: int = 0) -> list[str]:
    """Names drawn at random from all that the package defines: does each tell alone what it holds?"""
    drawn = []
    for path in product_files(checkout):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("__"):
                drawn.append(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and len(node.id) > 1:
                drawn.append(node.id)
            elif isinstance(node, ast.arg) and len(node.arg) > 1 and node.arg not in ("self", "cls"):
                drawn.append(node.arg)
    return random.Random(seed).sample(sorted(set(drawn)), n)


def report(checkout: Path) -> None:
    """Print the counts of one checkout."""
    by_package: Counter[str] = Counter()
    words: Counter[str] = Counter()
    sizes, comments = [], 0
    for path in product_files(checkout):
        source = path.read_text()
        by_package[path.relative_to(checkout / "capgap").parts[0]] += code_lines(source)
        words += private_words(ast.parse(source))
        comments += comment_lines(source)
        if path.name != "__init__.py":
            sizes.append(source.count("\n"))
    total = sum(by_package.values())
    print(f"{checkout}: {total:,} lines of code in {len(sizes)} modules, median {statistics.median(sizes):.0f} lines,")
    print(f"  longest {max(sizes)}, {100 * comments / total:.1f} comments in 100 lines of code")
    print("  by package: " + ", ".join(f"{name} {n:,}" for name, n in sorted(by_package.items())))
    print(f"  words that say nothing: {sum(words.values())} ({', '.join(f'{w} {n}' for w, n in words.most_common())})")
    twice = {name: where for name, where in class_names(checkout).items() if len(where) > 1}
    print(f"  class names that mean several things: {len(twice)}")
    for name, where in sorted(twice.items()):
        print(f"    {name}: {', '.join(where)}")
    print(f"  twenty names drawn at random: {', '.join(draw_names(checkout))}")


if __name__ == "__main__":
    for folder in sys.argv[1:] or ["."]:
        report(Path(folder).resolve())
