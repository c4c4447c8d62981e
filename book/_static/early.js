// sphinx-thebe.js reads this name on every page, also where no launch button defines it.
window.THEBE_JS_URL = "";
