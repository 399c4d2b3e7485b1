"""
Run by PyInstaller when a program imports `durable.web`: then it has the dashboard, and its command line has `ui`.

Other programs are built without either, and without a web server.
"""

hiddenimports = ["durable._cli.commands.debug.ui"]
