"""Which lines of an example are new: those under a comment that holds the code that they replace."""

import ast


def changed_lines(code: str) -> list[int]:
    """The lines, from 1 on, of statements below comments that are Python themselves. SyntaxError: code is none."""
    lines = code.splitlines()
    statements = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.stmt)]
    found = []
    for node in statements:
        above = lines[node.lineno - 2].strip() if node.lineno > 1 else ""
        if above.startswith("#") and _is_code(above.lstrip("# ")):
            found += range(node.lineno, node.end_lineno + 1)
    return sorted(found)


def _is_code(text: str) -> bool:
    """Whether a text binds, imports or calls something, which a sentence does not."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return False
    kinds = ast.Assign, ast.Import, ast.ImportFrom
    return any(isinstance(n, kinds) or (isinstance(n, ast.Expr) and isinstance(n.value, ast.Call)) for n in body)
