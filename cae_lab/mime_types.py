"""Types of what cells show, for code that runs without Matplotlib."""

# MIME type of a figure's HTML, which only the book shows. With text/html, JupyterLab and GitHub
# would show the HTML instead of the PNG, and in notebooks that they do not trust without its SVG.
FIGURE_MIME_TYPE = "application/vnd.cae.figure+html"
