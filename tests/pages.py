"""Reading the report of a run."""

from html.parser import HTMLParser

from rlvr_jax.reporting import embedded


class Page(HTMLParser):
    """Tags, attributes, visible text and embedded data of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.references, self.text, self.pieces, self.piece = [], [], "", {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        self.piece = dict(attrs).get("id", "") if tag == "script" else None

    def handle_endtag(self, _):
        self.piece = None

    def handle_data(self, data):
        if self.piece:
            self.pieces[self.piece] = embedded.unpacked(data)
        elif self.piece is None:
            self.text += data

    @property
    def panels(self):
        """Titles of the curves."""
        return [panel["title"] for panel in self.pieces["curves"]["panels"]]

    @property
    def samples(self):
        """The texts of all samples, in order."""
        return [x for i in range(len(self.pieces) - 2) for x in self.pieces[f"samples-{i}"]]
