"""How the checks of these folders tell what they found."""


class Report:
    """Prints a line for each part of a check, and counts what is not as it must be."""

    def __init__(self):
        self.problems = 0

    def part(self, name, sentences):
        """`sentences` are the problems of this part; none is well."""
        found = list(sentences)
        self.problems += len(found)
        print(f"{'ok     ' if not found else 'FAILED '} {name}")
        for sentence in found:
            print(f"           {sentence}")
