-- A memory of triples in SQLite. Ids are never used twice, so that whoever has seen id n knows what is new. What SQLite
-- has no second copy of in an index to compare with carries a CRC-32: vectors (at their end), sources and history.
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;

CREATE TABLE entities (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, vector BLOB NOT NULL);
CREATE TABLE relations (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, vector BLOB NOT NULL);
-- Entities and relations that were removed, by id alone: other clients take them out of their vector indexes.
CREATE TABLE removed (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id INTEGER NOT NULL);

CREATE TABLE triples (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  subject INTEGER NOT NULL,
  relation INTEGER NOT NULL,
  object INTEGER NOT NULL
);
CREATE UNIQUE INDEX triples_by_subject ON triples (subject, relation, object);
CREATE UNIQUE INDEX triples_by_object ON triples (object, relation, subject);

-- Triples that were replaced, under the ids that they had.
CREATE TABLE replaced (
  id INTEGER PRIMARY KEY,
  subject INTEGER NOT NULL,
  relation INTEGER NOT NULL,
  object INTEGER NOT NULL,
  replaced_by INTEGER NOT NULL,  -- the id of a triple, which may be gone
  replaced_at TEXT NOT NULL,
  crc INTEGER NOT NULL
);
CREATE INDEX replaced_by_subject ON replaced (subject, relation);
CREATE INDEX replaced_by_object ON replaced (object);

-- Of triples and of replaced ones. Nothing is '' or -1, so that equal sources are equal keys.
CREATE TABLE sources (
  triple INTEGER NOT NULL,
  document TEXT NOT NULL,
  sentence INTEGER NOT NULL,
  writer TEXT NOT NULL,
  time TEXT NOT NULL,
  crc INTEGER NOT NULL,
  PRIMARY KEY (triple, document, sentence, writer)
) WITHOUT ROWID;
CREATE INDEX sources_by_document ON sources (document);

-- How many triples an entity has in a relation: a query finds its pairs here without touching a hub's triples.
CREATE TABLE subject_pairs (
  entity INTEGER NOT NULL, relation INTEGER NOT NULL, triples INTEGER NOT NULL, PRIMARY KEY (entity, relation)
) WITHOUT ROWID;
CREATE TABLE object_pairs (
  entity INTEGER NOT NULL, relation INTEGER NOT NULL, triples INTEGER NOT NULL, PRIMARY KEY (entity, relation)
) WITHOUT ROWID;

CREATE TRIGGER triple_stored AFTER INSERT ON triples BEGIN
  INSERT INTO subject_pairs VALUES (new.subject, new.relation, 1) ON CONFLICT DO UPDATE SET triples = triples + 1;
  INSERT INTO object_pairs VALUES (new.object, new.relation, 1) ON CONFLICT DO UPDATE SET triples = triples + 1;
END;
CREATE TRIGGER triple_removed AFTER DELETE ON triples BEGIN
  UPDATE subject_pairs SET triples = triples - 1 WHERE entity = old.subject AND relation = old.relation;
  UPDATE object_pairs SET triples = triples - 1 WHERE entity = old.object AND relation = old.relation;
  DELETE FROM subject_pairs WHERE entity = old.subject AND relation = old.relation AND triples = 0;
  DELETE FROM object_pairs WHERE entity = old.object AND relation = old.relation AND triples = 0;
END;
