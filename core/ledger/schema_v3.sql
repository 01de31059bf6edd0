ALTER TABLE mcp_calls ADD COLUMN pid INTEGER;
ALTER TABLE mcp_calls ADD COLUMN ask_id TEXT;
CREATE INDEX mcp_calls_ask ON mcp_calls(ask_id);
