"""The page of a report: one HTML file without script, link to a network, or other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from itertools import zip_longest
from typing import Any

from PIL import Image

from ..version import __version__
from .stats_plots import FONTS, PALETTE, Plot, short

CONTACT = 48  # pictures of the contact sheet
_MOST_SIGNS = 80  # of a text that a pack's author wrote
_MOST_ROWS = 12  # of a table
_TINY = 40  # points of the longer side that a picture has at least
_EXTREMES = {
    "largest": "Largest",
    "smallest": "Smallest",
    "widest": "Widest for their height",
    "tallest": "Tallest for their width",
    "most_compressed": "Most compressed, in bits a pixel",
}
_SAMPLE_EXTREMES = {
    "darkest": "Darkest, in mean brightness",
    "brightest": "Brightest, in mean brightness",
    "plainest": "Plainest, in contrast",
}

_PAPER = {"paper": ("#ffffff", "#12181d"), "well": ("#f5f7f9", "#1a2229")}
_SHEET = """
*{box-sizing:border-box}
body{margin:0 auto;padding:2.5rem 1.25rem 4rem;max-width:68rem;
background:var(--paper);color:var(--ink);font:16px/1.5 FONTS}
h1{font-size:1.75rem;font-weight:650;margin:0;overflow-wrap:anywhere}
h2{font-size:1.2rem;font-weight:650;margin:3.25rem 0 .25rem}
h3,h4{font-size:.95rem;font-weight:600;margin:1.75rem 0 .5rem}
p{margin:.25rem 0 1rem;max-width:44rem}
p,caption,figcaption,footer,nav{color:var(--muted)}
p b{color:var(--ink);font-weight:600}
a{color:var(--accent)}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;margin:1.25rem 0;font-size:.9rem}
nav a{text-decoration:none}
nav a:hover,nav a:focus{text-decoration:underline}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:1px;margin:1.5rem 0;
background:var(--line);border:1px solid var(--line)}
dl div{background:var(--paper);padding:.7rem .9rem}
dt{font-size:.8rem;color:var(--muted)}
dd{margin:0;font-size:1.2rem;font-weight:600;font-variant-numeric:tabular-nums}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.5rem 2rem;
margin-top:1rem}
.plot{margin:0;min-width:0}
.plot img{display:block;width:100%;height:auto}
figcaption{font-size:.85rem}
.plot figcaption{margin-bottom:.25rem;color:var(--ink);font-weight:600}
.of{font-weight:400;color:var(--muted);margin-left:.5em}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;align-items:flex-start}
.tiles figure{margin:0;max-width:10rem}
.tiles img{display:block;max-width:100%;max-height:7.5rem;height:auto;background:var(--well)}
.tiles figcaption{font-size:.72rem;line-height:1.3;margin-top:.2rem;overflow-wrap:anywhere;
font-variant-numeric:tabular-nums}
.groups{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:1rem}
.group{background:var(--well);padding:.75rem}
.group h4{margin:0 0 .5rem;font-size:.85rem;font-weight:500;color:var(--muted)}
.group .tiles figure{max-width:7.5rem}
.tiles .tiny{image-rendering:pixelated}
.scroll{overflow-x:auto;min-width:0}
table{border-collapse:collapse;font-size:.84rem;margin:.75rem 0;font-variant-numeric:tabular-nums;
min-width:min(100%,24rem)}
caption{text-align:left;padding-bottom:.3rem}
th,td{text-align:right;padding:.28rem .7rem .28rem 0;border-top:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:7rem;font-weight:400}
thead th,thead td{border:0;font-weight:400;color:var(--muted)}
.words th,.words td{text-align:left}
td.bar{width:10rem;min-width:5rem}
td.bar i{display:block;height:.55rem;background:var(--accent)}
.note{border-left:3px solid var(--accent);padding:.1rem 0 .1rem .9rem;color:var(--ink)}
footer{margin-top:4rem;padding-top:1rem;border-top:1px solid var(--line);font-size:.85rem;overflow-wrap:anywhere}
@media(max-width:30rem){.tiles figure{max-width:6.6rem}}
@media print{body{max-width:none}nav{display:none}figure,.group{break-inside:avoid}}
"""


def page_of(numbers: dict[str, Any], plots: Mapping[str, Plot], thumbnails: Mapping[int, bytes]) -> str:
    """Return the page. numbers: stats.py's. thumbnails: JPEGs by record."""
    return _Page(numbers, plots, thumbnails).html()


class _Page:
    def __init__(self, numbers: dict[str, Any], plots: Mapping[str, Plot], thumbnails: Mapping[int, bytes]):
        self.numbers, self.plots, self.thumbnails = numbers, plots, thumbnails
        self.live, self.measured = numbers["pack"]["live"], numbers["sample"]["measured"]
        self.is_whole = numbers["sample"]["drawn"] == self.live
        self.of_sample = "all pictures" if self.is_whole else f"a sample of {self.measured:,}"

    def html(self) -> str:
        name = shown(self.numbers["pack"]["name"])
        sections = {
            "Look": self._look(), "Sizes": self._sizes(), "Bytes": self._bytes(), "Colours": self._colours(),
            "Extremes": self._extremes(), "Duplicates": self._duplicates(), "Classes": self._classes(),
            "Licences": self._licences(), "Dates": self._dates(), "Places": self._places(), "Damage": self._damage(),
        }  # fmt: skip
        sections = {title: body for title, body in sections.items() if body}
        links = "".join(f'<a href="#{title.lower()}">{title}</a>' for title in sections)
        bodies = "".join(
            f'<section id="{title.lower()}"><h2>{title}</h2>\n{body}</section>\n' for title, body in sections.items()
        )
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f"<title>{name}: a report</title>\n<style>{_sheet()}</style></head>\n<body>\n"
            f"<header><h1>{name}</h1>\n<p>What this pack of pictures holds.</p>{self._facts()}</header>\n"
            f'<nav aria-label="Sections">{links}</nav>\n<main>\n{bodies}</main>\n{self._footer()}\n</body></html>\n'
        )

    def _facts(self) -> str:
        pack, sizes, bytes_ = self.numbers["pack"], self.numbers["sizes"], self.numbers["bytes"]
        facts = {
            "pictures": f"{self.live:,}",
            "removed, not shown": f"{pack['removed']:,}" if pack["removed"] else "",
            "bytes of pictures": in_bytes(bytes_["record_bytes"]["sum"]),
            "median size": f"{sizes['width_px']['median']:,} × {sizes['height_px']['median']:,}",
            "median record": in_bytes(bytes_["record_bytes"]["median"]),
            "stored as": ", ".join(self.numbers["codecs"]),
            "shards": f"{pack['shards']:,}",
        }
        return "<dl>" + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in facts.items() if v) + "</dl>"

    def _look(self) -> str:
        records, sample = self.numbers["contact_sheet"], self.numbers["sample"]
        if not records:
            return ""
        return (
            f"<p>{counted(len(records), 'picture')}, drawn at random from all {self.live:,} with seed "
            f"{sample['seed']}, as they are stored.</p>\n" + self._tiles(records)
        )

    def _sizes(self) -> str:
        sizes = self.numbers["sizes"]
        kinds = [name for name in ("landscape", "portrait", "square") if sizes[name]]
        parts = ", ".join(f"<b>{share(sizes[name], self.live)}</b> {name}" for name in kinds)
        rows = {"width": sizes["width_px"], "height": sizes["height_px"], "width × height": sizes["pixels"]}
        frequent = [
            (f"{size['width_px']:,} × {size['height_px']:,}", size["pictures"]) for size in sizes["most_frequent"] or []
        ]
        return (
            f"<p>{parts}. Sizes are those of the files, before any Exif rotation.</p>\n"
            + _side_by_side(self._plot("sizes"), self._plot("aspect-ratios"))
            + _side_by_side(
                _spreads("Sizes of all pictures, pixels", rows, _pixels),
                _bars("Most frequent sizes", "width × height", frequent, self.live),
            )
        )

    def _bytes(self) -> str:
        bytes_, codecs = self.numbers["bytes"], self.numbers["codecs"]
        found = f"<p><b>{bytes_['bits_per_pixel']:.2f} bits a pixel</b> over all pictures."
        if [*codecs] != ["jpeg"]:
            found += " A record has the bytes of its codec, not those of the file that it was made of."
        tables = [_spreads("Bytes of all records", {"bytes of a record": bytes_["record_bytes"]}, in_bytes)]
        if len(codecs) > 1:
            tables.append(_bars("Codecs", "codec", [*codecs.items()], self.live))
        return found + "</p>\n" + _side_by_side(self._plot("bytes"), self._plot("density")) + _side_by_side(*tables)

    def _colours(self) -> str:
        qualities = self.numbers["qualities"]
        if not self.measured:
            return ""
        facts = (
            f"<b>{share(qualities['progressive'], self.measured)}</b> are progressive or interlaced, "
            f"<b>{share(qualities['exif_rotated'], self.measured)}</b> have an Exif rotation."
        )
        if qualities["jpegs"]:
            facts = (
                f"The median JPEG quality is <b>{qualities['median']}</b>: that of libjpeg's luminance table which is "
                f"nearest to the picture's. {facts}"
            )
        colours = _bars(f"Colours of {self.of_sample}", "kind", [*self.numbers["colours"].items()], self.measured)
        samplings = [*qualities["samplings"].items()]
        return (
            f"<p>Of {self.of_sample}. {facts}</p>\n"
            + _side_by_side(self._plot("brightness"), self._plot("contrast"))
            + _side_by_side(
                self._plot("qualities"),
                "<div>" + colours + _bars("Chroma sampling of JPEGs", "sampling", samplings, self.measured) + "</div>",
            )
        )

    def _extremes(self) -> str:
        found = "<p>Of all pictures, by size and bytes.</p>"
        for name, title in _EXTREMES.items():
            records = self.numbers["extremes"][name]
            captions = [self._size(record) for record in records]
            if name == "most_compressed":
                captions = [f"{density:.2f}" for density in map(self._density, records)]
            found += f"<h3>{title}</h3>\n" + self._tiles(records, captions)
        for name, title in _SAMPLE_EXTREMES.items() if self.measured else ():
            ranked = self.numbers["sample_extremes"][name]
            captions = [f"{100 * value:.1f} %" for _, value in ranked]
            found += f'<h3>{title}<span class="of">of {self.of_sample}</span></h3>\n'
            found += self._tiles([record for record, _ in ranked], captions)
        return found

    def _duplicates(self) -> str:
        equal, like = self.numbers["equal_bytes"], self.numbers["alike"]
        found = '<h3>Equal bytes<span class="of">of all pictures</span></h3>\n'
        if equal["groups"]:
            repeated = equal["pictures"] - equal["groups"]
            found += (
                f"<p><b>{counted(repeated, 'picture')}</b>, {in_bytes(equal['repeated_bytes'])}, repeat the "
                f"bytes of another: {counted(equal['groups'], 'group')} with the same CRC-32C, length and size.</p>\n"
                + self._groups(equal["largest"])
            )
        else:
            found += "<p>None: no two have the same CRC-32C, length and size.</p>\n"
        found += f'<h3>Alike<span class="of">of {self.of_sample}</span></h3>\n'
        if like is None:
            return found + "<p>Not looked for: imagehash is not installed (pip install 'pass-loader[report]').</p>"
        few = "" if self.is_whole else " Both must be in the sample, so most of the pack's are not found."
        bits = f"perceptual hashes that differ in at most {like['most_different_bits']} of 64 bits"
        if not like["groups"]:
            return found + f"<p>None: no two have {bits}.{few}</p>"
        return (
            f"{found}<p><b>{counted(like['pictures'], 'picture')}</b> in {counted(like['groups'], 'group')}, with "
            f"other bytes and with {bits}. Pictures without contrast are not compared.{few}</p>\n"
            + self._groups(like["largest"])
        )

    def _classes(self) -> str:
        classes = self.numbers["classes"]
        if classes is None:
            return ""
        without = f" {counted(classes['without'], 'picture')} without one." if classes["without"] else ""
        tables = []
        for name in ("largest", "smallest"):
            rows = [(one["class"], one["pictures"]) for one in classes[name]]
            if name == "largest" or classes["count"] > len(rows):
                tables.append(_bars(f"{name.capitalize()} classes", "class", rows, self.live))
        return f"<p><b>{classes['count']:,}</b> classes.{without}</p>\n" + _side_by_side(*tables)

    def _licences(self) -> str:
        licences, creators, found = self.numbers["licences"], self.numbers["creators"], ""
        if creators is not None:
            found += f"<p><b>{share(creators['known'], self.live)}</b> of the pictures name their creator"
            found += f"; {creators['without']:,} do not.</p>\n" if creators["without"] else ".</p>\n"
        if licences is not None:
            rows = [(one["licence"], one["pictures"]) for one in licences["licences"]]
            others = sum(count for _, count in rows[_MOST_ROWS:]) + licences["others"]
            rows = rows[:_MOST_ROWS] + [("other licences", others)] * (others > 0)
            rows += [("not known", licences["without"])] * (licences["without"] > 0)
            found += _bars(f"Licences of all pictures, column {licences['column']}", "licence", rows, self.live)
        return found

    def _dates(self) -> str:
        dates = self.numbers["dates"]
        if dates is None:
            return ""
        known = sum(month["pictures"] for month in dates["months"])
        text = f"<b>{share(known, self.live)}</b> of the pictures have a date in the column {shown(dates['column'])}"
        if dates["months"]:
            text += f", from {dates['months'][0]['month']} to {dates['months'][-1]['month']}"
        if dates["unreadable"]:
            text += f"; {dates['unreadable']:,} more have one that cannot be read"
        return f"<p>{text}.</p>\n" + _side_by_side(self._plot("dates"))

    def _places(self) -> str:
        places = self.numbers["places"]
        if places is None:
            return ""
        text = f"<b>{share(places['known'], self.live)}</b> of the pictures have coordinates"
        if places["known"]:
            text += f", in {counted(len(places['cells']), 'cell')} of one degree; the stronger, the more of them"
        if places["impossible"]:
            text += f". {places['impossible']:,} more have impossible ones"
        return f"<p>{text}.</p>\n" + _side_by_side(self._plot("places"))

    def _damage(self) -> str:
        sample, rows = self.numbers["sample"], self.numbers["damaged"]
        if not rows:
            return ""
        cells = "".join(
            f"<tr><td><bdi>{shown(row['cause'], 300)}</bdi></td><td>{row['record']}</td>"
            f"<td><bdi>{shown(row['id'])}</bdi></td><td>{shown(row['shard'])}</td></tr>"
            for row in rows
        )
        return (
            f'<p class="note"><b>{sample["damaged"]:,}</b> of {counted(sample["drawn"], "sampled picture")} cannot be '
            "read or decoded. These and others that were to be shown are listed. "
            "<code>pass-pack verify --decode</code> checks all.</p>\n"
            '<div class="scroll" tabindex="0" role="region" aria-label="Damaged pictures"><table class="words">'
            '<thead><tr><th scope="col">cause</th><th scope="col">record</th>'
            f'<th scope="col">id</th><th scope="col">shard</th></tr></thead><tbody>{cells}</tbody></table></div>\n'
        )

    def _footer(self) -> str:
        pack, sample = self.numbers["pack"], self.numbers["sample"]
        return (
            f"<footer>pass-loader {escape(__version__)}, <code>pass-pack stats</code>: "
            f"{counted(sample['drawn'], 'picture')} decoded, seed {sample['seed']}. Pack {shown(pack['pack_id'])}, "
            f"revision {pack['revision']}, generation {pack['generation']}. report.json beside this page has the "
            "numbers.</footer>"
        )

    def _plot(self, name: str) -> str:
        if name not in self.plots:
            return ""
        plot = self.plots[name]
        of = self.of_sample if name in ("qualities", "brightness", "contrast") else "all pictures"
        return (
            f'<figure class="plot"><figcaption>{plot.title}<span class="of">of {of}</span></figcaption>'
            f'<img alt="{escape(plot.alt)}" src="{_data("image/svg+xml", plot.svg)}"></figure>\n'
        )

    def _groups(self, groups: list[dict[str, Any]]) -> str:
        found = ""
        for group in groups:
            others = group["pictures"] - len(group["records"])
            more = f", {others:,} of them not shown" if others else ""
            captions = [f"<bdi>{shown(self._about(record)['id'], 40)}</bdi>" for record in group["records"]]
            found += (
                f'<div class="group"><h4>{counted(group["pictures"], "picture")}{more}</h4>'
                f"{self._tiles(group['records'], captions)}</div>\n"
            )
        return f'<div class="groups">{found}</div>\n'

    def _tiles(self, records: Sequence[int], captions: Sequence[str] = ()) -> str:
        """Return pictures side by side. captions: of each, HTML."""
        rows = zip_longest(records, captions, fillvalue="")
        return '<div class="tiles">' + "".join(self._tile(int(record), str(text)) for record, text in rows) + "</div>\n"

    def _tile(self, record: int, caption: str) -> str:
        size = self._size(record)
        title = f"record {record}, id {shown(self._about(record)['id'])}, {size}"
        title += f", {in_bytes(self._about(record)['record_bytes'])}"
        data = self.thumbnails.get(record)
        if data is None:
            return f'<figure title="{title}"><figcaption>record {record} cannot be decoded</figcaption></figure>'
        with Image.open(io.BytesIO(data)) as picture:
            scale = max(0.5, _TINY / max(picture.size))  # two pixels a point, for sharp screens
            width, height = (max(1, round(side * scale)) for side in picture.size)
            tiny = ' class="tiny"' if scale > 1 else ""
        caption = f"<figcaption>{caption}</figcaption>" if caption else ""
        return (
            f'<figure title="{title}"><img{tiny} width="{width}" height="{height}" alt="record {record}, {size}" '
            f'src="{_data("image/jpeg", data)}">{caption}</figure>'
        )

    def _about(self, record: int) -> dict[str, Any]:
        return self.numbers["pictures"][str(record)]

    def _size(self, record: int) -> str:
        return f"{self._about(record)['width_px']:,} × {self._about(record)['height_px']:,}"

    def _density(self, record: int) -> float:
        about = self._about(record)
        return 8 * about["record_bytes"] / (about["width_px"] * about["height_px"])


def shown(text: Any, most: int = _MOST_SIGNS) -> str:
    """Return a text from the pack as HTML: escaped, without signs that do not print or turn the line, not too long."""
    cut = str(text)[: most + 1]
    plain = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in cut)
    return escape(plain if len(plain) <= most else plain[: most - 1] + "…")


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _side_by_side(*parts: str) -> str:
    """Return HTML in two columns where there is room."""
    return f'<div class="columns">{"".join(parts)}</div>\n' if any(parts) else ""


def share(part: int, whole: int) -> str:
    """Return a share in percent; what is not all is never 100 %, what is some never 0."""
    percent = 100 * part / max(whole, 1)
    if part in (0, whole):
        return f"{percent:.0f} %"
    if percent < 0.1 or percent > 99.9:
        return "< 0.1 %" if percent < 0.1 else "> 99.9 %"
    return f"{percent:.1f} %"


def _pixels(count: float) -> str:
    return f"{count:,.0f}" if count < 100_000 else short(count)


def in_bytes(count: float) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}" if count / unit < 1000 else f"{count / unit:.0f} {name}"
    return f"{count:.0f} B"


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _sheet() -> str:
    schemes = ["".join(f"--{name}:{pair[scheme]};" for name, pair in (PALETTE | _PAPER).items()) for scheme in (0, 1)]
    dark = f"@media(prefers-color-scheme:dark){{:root{{{schemes[1]}}}}}"
    return f":root{{color-scheme:light dark;{schemes[0]}}}{dark}" + _SHEET.replace("FONTS", FONTS)


def _spreads(title: str, rows: dict[str, dict[str, Any]], text: Any) -> str:
    names = {"least": "least", "p5": "5 %", "median": "median", "mean": "mean", "p95": "95 %", "most": "most"}
    head = "".join(f'<th scope="col">{name}</th>' for name in names.values())
    body = "".join(
        f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{text(spread[key])}</td>" for key in names) + "</tr>"
        for name, spread in rows.items()
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table><caption>{title}</caption>'
        f"<thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>\n"
    )


def _bars(title: str, what: str, rows: Sequence[tuple[Any, int]], whole: int) -> str:
    """Return a table of counts, with bars."""
    if not rows:
        return ""
    most = max(count for _, count in rows) or 1
    body = "".join(
        f'<tr><th scope="row"><bdi>{shown(name)}</bdi></th><td>{count:,}</td><td>{share(count, whole)}</td>'
        f'<td class="bar"><i style="width:{100 * count / most:.1f}%"></i></td></tr>'
        for name, count in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{shown(title)}"><table>'
        f"<caption>{shown(title)}</caption>"
        f'<thead><tr><th scope="col">{what}</th><th scope="col">pictures</th><th scope="col">share</th><td></td></tr>'
        f"</thead><tbody>{body}</tbody></table></div>\n"
    )
