"""The tables of benchmarks as HTML (see data/benchmarks.py)."""
from html import escape

from data import benchmarks
from data.benchmarks import Cell, Table


def tables(metrics: dict[str, dict]) -> str:
    """Return the tables of the benchmarks that the entries of metrics.json belong to, '' if there are none."""
    return "".join(_table(each) for each in benchmarks.tables(metrics))


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in table.titles)
    body = ""
    for row in table.rows:
        label = f"{escape(row.label)} <i>published</i>" if row.published else f"<b>{escape(row.label)}</b>"
        over = f"<small>over {escape(row.over)}</small>" if row.over else ""
        cells = "".join(f'<td class="{"soft" if row.published else ""}">{_cell(cell)}</td>' for cell in row.cells[:-1])
        body += (f'<tr><th scope="row">{label}</th>{cells}'
                 f'<td class="{"soft" if row.published else "main"}">{_cell(row.cells[-1])}{over}</td></tr>')
    name = f"Benchmark {table.benchmark}, protocol {table.protocol}"
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (f'<div class="benchmark"><h3>{escape(name)} <span>PSNR in dB, SSIM</span></h3>'
            f'<div class="wide" tabindex="0" role="group" aria-label="{escape(name)}"><table>'
            f'<thead><tr><th scope="col">Network</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
            f'<ul class="fine">{notes}</ul></div>')


def _cell(cell: Cell) -> str:
    psnr, ssim = cell
    return "–" if psnr is None else f"{psnr:.2f}".replace("-", "−") + ("" if ssim is None else f"<small>{ssim:.4f}</small>")
