"""Programs with a page each: from a corpus or a question to stores, tables, runs and figures."""
