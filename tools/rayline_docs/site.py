"""The hook of mkdocs.yml: pages and the files that they link to stand in the site under their paths in the repository.

So a link that works in the repository works in the site, and no page is rewritten.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = ("*.md", "docs/**/*.md", "benchmarks/*.md", "benchmarks/receipts/*.md")
RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Replace the files of docs/ by the repository's pages and what they link to. The theme's files stay."""
    root = Path(config.config_file_path).parent
    pages = {path for pattern in PAGES for path in root.glob(pattern)}
    links = {(page.parent / link).resolve() for page in pages for link in RELATIVE_LINK.findall(page.read_text("utf-8"))}
    paths = pages | links | {root / name for name in config.extra_css}
    names = sorted(path.relative_to(root).as_posix() for path in paths if path.is_file())
    ours = [File(name, str(root), config.site_dir, config.use_directory_urls) for name in names]
    return Files([*(file for file in files if file.src_dir != config.docs_dir), *ours])
