"""The studio in a browser: a server that only this computer reaches, and the page's files.

Begin at `contract`, what the server asks of a studio. `app` answers requests, `security` decides who may ask,
`serving` starts it and says where it is.
"""
