"""
`@transaction` in the application's own database: its rows, its outcome and the runs that it stages commit together.

On threads, through any module of the DB-API; of the server it knows nothing.

Start with `app_transactions`.
"""
