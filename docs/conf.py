"""Settings of Sphinx; `docs/build.py` calls it with the pages that it has made."""
import os

project = 'rprop_lit'
author = 'The rprop_lit developers'
copyright = '2026, The rprop_lit developers'
html_title = 'rprop_lit'

extensions = ['myst_nb']
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'attrs_inline', 'deflist']
myst_heading_anchors = 3
nb_execution_mode = 'off'  # the committed outputs are shown, and tests/test_notebooks.py runs them
nb_render_markdown_format = 'myst'
nb_merge_streams = True
exclude_patterns = ['_static']

html_theme = 'sphinx_book_theme'
html_static_path = ['_static']
html_css_files = ['site.css']
html_js_files = [('play.js', {'type': 'module'})]
html_favicon = '_static/favicon.svg'
html_context = {'default_mode': 'auto'}
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    'repository_url': os.environ['RPROP_LIT_URL'],
    'use_repository_button': True,
    'use_download_button': False,
    'show_toc_level': 2,
    'show_navbar_depth': 1,
    'home_page_in_toc': False,
    'pygments_light_style': 'a11y-high-contrast-light',
    'pygments_dark_style': 'a11y-high-contrast-dark',
}

mathjax_path = 'npm/mathjax/tex-svg.js'
mathjax4_config = {
    'loader': {'paths': {'mathjax-newcm': '[mathjax]/../mathjax-newcm-font'}},
    'output': {'fontPath': '[mathjax]/../%%FONT%%-font'},
}
