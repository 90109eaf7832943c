"""The HTML of the result page: names and flags are escaped here; the data for script.js is embedded as JSON."""
import base64
import hashlib
import json
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
CHANNELS = {"rgb": "RGB", "y": "Y", "y8": "Y, 8 bits"}
ROUNDING = {"round": "rounded to 8 bits", "truncate": "truncated to 8 bits", "none": "not rounded"}
SSIM = {"gaussian": "Gaussian SSIM", "uniform7": "uniform-7 SSIM", "columns7": "1-D SSIM"}
HEADINGS = ("Result", "Input", "Gain", "Result", "Input", "95 % interval")


def build(title: str, about: dict[str, str], table: str, charts: str, data: dict, notes: list[str], flags: dict) -> str:
    """Return the whole page; `table` and `charts` are HTML, `data` is the input of script.js, all other arguments are plain text."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    listed = "".join(f"<div{' class=long' if len(value) > 26 else ''}><dt>{escape(key)}</dt><dd>{breakable(value)}</dd></div>"
                     for key, value in about.items())
    remarks = "".join(f"<li>{escape(note)}</li>" for note in notes)
    sections = [section("numbers", "Numbers", table) if table else "",
                section("training", "Training", f'<div class="charts">{charts}</div>') if charts else "",
                images(data) if data["cards"] else "",
                section("notes", "Notes", f"<ul>{remarks}</ul>") if remarks else "", all_flags(flags) if flags else ""]
    policy = f"default-src 'none'; img-src data: file: 'self'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · Unweather</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header class="top">
<p class="kind">Unweather <span>results</span></p>
<button id="theme" type="button" hidden>Dark</button>
<h1>{escape(title)}</h1>
<dl class="facts">{listed}</dl>
</header>
<main>
{"".join(sections)}</main>
{VIEWER if data["cards"] else ""}<script type="application/json" id="data">{embedded(data)}</script>
<script>{script}</script>
</body>
</html>
"""


VIEWER = """<dialog id="viewer" aria-labelledby="viewer-name">
<div class="bar"><div class="who"><h2 id="viewer-name"></h2>
<p><span id="viewer-where"></span><span id="viewer-small">, thumbnail</span></p></div>
<div class="choice" id="viewer-show" role="group" aria-label="View"></div>
<button type="button" id="viewer-close" aria-label="Close">Close</button></div>
<div id="stage"></div>
<div class="bar foot"><p class="scores" id="viewer-scores"></p>
<p class="keys" aria-hidden="true"><span><kbd>←</kbd> <kbd>→</kbd> image</span>
<span><kbd>1</kbd> to <kbd id="viewer-last">4</kbd> one view</span> <span><kbd>S</kbd> slider</span>
<span><kbd>+</kbd> <kbd>−</kbd> <kbd>0</kbd> zoom</span></p>
<div class="steps"><a id="viewer-full" target="_blank" rel="noopener">Full size</a>
<button type="button" id="zoom-out" aria-label="Smaller">−</button><output id="zoom"></output>
<button type="button" id="zoom-in" aria-label="Larger">+</button>
<button type="button" id="previous" aria-label="Previous image">←</button><button type="button" id="next" aria-label="Next image">→</button>
</div></div>
</dialog>
"""


def embedded(data: object) -> str:
    """Return JSON for a script element; `<` is escaped, so that no text can end the element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def section(name: str, title: str, body: str) -> str:
    """Return a section with its heading; `body` is HTML."""
    return f'<section id="{name}"><h2>{escape(title)}</h2>\n{body}</section>\n'


def images(data: dict) -> str:
    """Return the section into which script.js inserts the cards."""
    scale = ""
    measured = f"; the numbers were measured on the full images, by the protocol {escape(data['protocol'])}" if data["protocol"] else ""
    views = [view for card in data["cards"] for view in card["views"]]
    full = "; the large view shows the files in full size" if any("full" in view for view in views) else ""
    if any(view["key"].startswith("error") for view in views):
        scale = ('<p class="scale"><span>Error map: mean absolute difference from the clean image</span><span class="ramp">'
                 '<span>0</span><i></i><span>40 of 255 or more</span></span></p>')
    return section("images", "Images", '<form class="tools" id="tools"></form>\n<noscript><p>The images need JavaScript.</p></noscript>\n'
                   + '<ol class="cards" id="cards"></ol>\n' + scale
                   + f'<p class="fine">Thumbnails, compressed for this page{full}{measured}.</p>')


def breakable(text: str) -> str:
    """Return a text as HTML in which a line may break after a slash or a plus."""
    return "".join(f"{escape(letter)}<wbr>" if letter in "/+" else escape(letter) for letter in text)


def all_flags(flags: dict) -> str:
    """Return the flags of the experiment as a collapsed section."""
    rows = "".join(f"<div><dt>--{escape(str(key))}</dt><dd>{escape(worded(value)) or '–'}</dd></div>"
                   for key, value in sorted(flags.items()))
    return f'<details id="flags"><summary>All {len(flags)} flags</summary><dl class="flags">{rows}</dl></details>\n'


def worded(value: object) -> str:
    """Return the value of a flag as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def unique(values) -> list[str]:
    """Return the non-empty values as text, each once."""
    return list(dict.fromkeys(str(value) for value in values if value))


def measured(entry: dict) -> bool:
    """Return whether an entry of metrics.json holds numbers."""
    return "psnr" in entry or bool(entry.get("clean"))


def numbers(metrics: dict[str, dict], best: dict | None = None) -> str:
    """Return the table of metrics.json as HTML: a group for each data set, a row for each protocol and channel; '' without numbers.

    best: the record of the best epoch in log.jsonl; the sets that were tested with its weights name it.
    """
    groups, seen, several = [], {}, len(unique(entry.get("weights") for entry in metrics.values())) > 1
    for name, entry in metrics.items():
        rows = []
        for each in [entry, *(other for other in entry.get("others") or () if isinstance(other, dict))]:
            rows += lines(each, seen)
        rows += [clean(each) for each in entry.get("clean") or () if isinstance(each, dict)]
        if not rows:
            continue
        groups.append(f'<tbody><tr class="set"><th scope="rowgroup" colspan="{len(HEADINGS) + 2}"><div><b>{escape(name)}</b> '
                      f"<span>{escape(conditions(entry, several, best))}</span></div></th></tr>{''.join(rows)}</tbody>")
    if not groups:
        return ""
    head = ('<tr><th scope="col" rowspan="2">Protocol</th><th scope="col" rowspan="2" class="text">Channel</th>'
            '<th scope="colgroup" colspan="3" class="over"><span>PSNR, dB</span></th>'
            '<th scope="colgroup" colspan="2" class="over"><span>SSIM</span></th><th></th></tr>'
            '<tr>' + "".join(f'<th scope="col">{escape(text)}</th>' for text in HEADINGS) + "</tr>")
    notes = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in seen.items())
    return (f'<div class="wide" tabindex="0" role="group" aria-label="Numbers by data set"><table><thead>{head}</thead>{"".join(groups)}'
            f'</table></div>\n<dl class="protocols">{notes}</dl>'
            '<p class="fine">Means over the images, with a bootstrap interval of the mean PSNR. Do not compare numbers of different '
            'protocols.</p>')


def conditions(entry: dict, weights: bool, best: dict | None = None) -> str:
    """Return a text about how a set was tested, with the name of the weights if `weights` is true, and the best epoch if it was tested."""
    count, subset, tile, some = (entry.get(key) for key in ("count", "subset", "tile", "in_tiles"))
    unit = str(entry.get("unit", "images"))
    parts = [f"{count} {unit.removesuffix('s') if count == 1 else unit}" + ("" if subset in (None, "all") else f" ({subset})"),
             {"single": "fp32", "half": "fp16"}.get(str(entry.get("precision")), str(entry.get("precision"))),
             *filter(None, [str(entry.get("backend") or "")]),
             f"{f'{some} of them in ' if some else ''}tiles of {tile}, overlap {entry.get('tile_overlap')}" if tile else "whole images"]
    parts += ["mean of 8 flips and rotations"] * bool(entry.get("self_ensemble"))
    parts += [str(entry[key]) for key in ("noise", "degradation") if entry.get(key)]
    parts += [f"weights {entry.get('weights')}"] * weights
    return ", ".join(parts + ([f"best: {best['chosen']}"] if best and best["weights"] == entry.get("weights") else []))


def lines(each: dict, seen: dict[str, str]) -> list[str]:
    """Return the table rows of one protocol, one for each channel; the settings of the protocol are added to `seen` by name."""
    protocol = each.get("protocol")
    if not isinstance(protocol, dict) or "psnr" not in each:
        return []
    name = f"{protocol.get('name')} v{protocol.get('version')}"
    seen[name] = settings(protocol)
    endings = ["", *(key.removeprefix("psnr") for key in each if key.startswith("psnr_"))]
    rows, kinds = [], [str(each.get("channel")), *(ending[1:] for ending in endings[1:])]
    for ending, kind in zip(endings, kinds):
        psnr, before = each.get(f"psnr{ending}"), each.get(f"input_psnr{ending}")
        low, high = (each.get("interval95") or {}).get(f"psnr{ending}") or (None, None)
        cells = [figure(psnr, 2), figure(before, 2), gain(psnr, before), figure(each.get(f"ssim{ending}"), 4),
                 figure(each.get(f"input_ssim{ending}"), 4), f"{figure(low, 2)} to {figure(high, 2)}" if low is not None else "–"]
        values = "".join(f'<td class="{css}">{cell}</td>' for css, cell in zip(("main", "soft", "", "", "soft", "soft"), cells))
        label = f'<th scope="row">{escape(name)}</th>' if not ending else "<td></td>"
        rows.append(f'<tr>{label}<td class="text">{escape(CHANNELS.get(kind, kind))}</td>{values}</tr>')
    further = {key: value for key, value in each.items() if isinstance(value, float) and not key.startswith(("psnr", "ssim", "input_"))}
    if further:
        text = ", ".join(f"{key} {figure(value, 4)}" for key, value in further.items())
        rows.append(f'<tr><td></td><td class="text" colspan="{len(HEADINGS) + 1}">{escape(text)}</td></tr>')
    return rows


def clean(each: dict) -> str:
    """Return the table row of one noise level of restored clean images (see restore/clean.py)."""
    worst = escape(f"worst {figure(each.get('worst'), 2)}, {each.get('worst_image')}")
    return (f'<tr><th scope="row">clean images, sigma {escape(str(each.get("sigma")))}</th><td class="text">RGB</td>'
            f'<td class="main">{figure(each.get("psnr"), 2)}</td><td class="text soft" colspan="{len(HEADINGS) - 1}">{worst}</td></tr>')


def settings(protocol: dict) -> str:
    """Return the settings of a protocol as text."""
    channels = " and ".join(CHANNELS.get(kind, "Y for rain, else RGB") for kind in protocol.get("channels") or ())
    size = str(protocol.get("size")).replace("crop", "cropped to multiples of").replace("resize", "resized to multiples of")
    border = f"{protocol['border']} px of the border left out" if protocol.get("border") else "no border left out"
    return ", ".join([channels, ROUNDING.get(str(protocol.get("rounding")), ""), border, "whole image" if size == "pad" else size,
                      SSIM.get(str(protocol.get("ssim")), "")])


def figure(value: object, digits: int) -> str:
    """Return a number with `digits` decimals and a typographic minus sign, or a dash if it is missing."""
    return f"{value:.{digits}f}".replace("-", "−") if isinstance(value, (int, float)) else "–"


def gain(value: object, before: object) -> str:
    """Return the difference of two numbers with its sign, or a dash if one is missing."""
    if not isinstance(value, (int, float)) or not isinstance(before, (int, float)):
        return "–"
    return f"{value - before:+.2f}".replace("-", "−")


def table(rows: list[dict[str, str]], name: str, text: bool = False) -> str:
    """Return a plain table of numbers, or of `text`, as HTML; the first column names the row."""
    css = ' class="text"' if text else ""
    head = "".join(f'<th scope="col"{css if place else " class=text"}>{escape(key)}</th>' for place, key in enumerate(rows[0]))
    body = ""
    for row in rows:
        first, *others = row.values()
        cells = "".join(f"<td{css}>{escape(each if text else each.replace('-', '−'))}</td>" for each in others)
        body += f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    return (f'<div class="wide" tabindex="0" role="group" aria-label="{escape(name)}"><table><thead><tr>{head}</tr></thead>'
            f'<tbody>{body}</tbody></table></div>')
