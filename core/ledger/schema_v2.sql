CREATE TABLE substitution_events (id INTEGER PRIMARY KEY, timestamp TEXT NOT NULL, action TEXT, credential TEXT, kind TEXT, domain TEXT, place TEXT, form TEXT, process_name TEXT, pid INTEGER);
CREATE INDEX substitution_events_timestamp ON substitution_events(timestamp);
CREATE INDEX substitution_events_credential ON substitution_events(credential);
CREATE TABLE detection_events (id INTEGER PRIMARY KEY, timestamp TEXT NOT NULL, detector TEXT, rule TEXT, outcome TEXT, domain TEXT, place TEXT, process_name TEXT, pid INTEGER);
CREATE INDEX detection_events_timestamp ON detection_events(timestamp);
