"""Our stores under other frameworks' interfaces.

Nothing is imported here: ``vectorstore.integrations.langchain`` needs the extra ``langchain`` and
``vectorstore.integrations.haystack`` the extra ``haystack``. Each stands on the port alone, so it
works over any store or the router, and stays when the migration is over.
"""
