"""`--format web`: a static page that runs a model in the browser, without a server behind it."""
