-- Keys, their numbered changes, and the audit log.
--
-- Times are whole microseconds since 1970-01-01T00:00:00Z; null means never. Everything also
-- works in the `sqlite3` shell of older distributions (SQLite 3.38 and later), so that keys can
-- be changed with plain SQL.

CREATE TABLE api_keys (
    -- Public name of the key.
    id text PRIMARY KEY NOT NULL CHECK (id <> ''),
    -- Lookup digest; the key itself is stored nowhere.
    digest blob NOT NULL UNIQUE CHECK (length(digest) = 32),
    -- Fingerprint of the secret that the key was minted with. Null for an imported key, whose
    -- digest is a plain SHA-256.
    secret text,
    -- Displayable part of the key.
    hint text NOT NULL DEFAULT '',
    principal text NOT NULL CHECK (principal <> ''),
    name text NOT NULL DEFAULT '',
    -- JSON arrays of strings.
    scopes text NOT NULL DEFAULT '[]'
        CHECK (json_valid(scopes) AND json_type(scopes) = 'array'),
    allowed_networks text NOT NULL DEFAULT '[]'
        CHECK (json_valid(allowed_networks) AND json_type(allowed_networks) = 'array'),
    audiences text NOT NULL DEFAULT '[]'
        CHECK (json_valid(audiences) AND json_type(audiences) = 'array'),
    -- A JSON object with string values.
    metadata text NOT NULL DEFAULT '{}'
        CHECK (json_valid(metadata) AND json_type(metadata) = 'object'),
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled', 'revoked')),
    not_before integer,
    expires_at integer,
    created_at integer NOT NULL
        DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS integer)),
    last_used_at integer,
    -- Ids of the key that this one replaces, and of the key last minted to replace this one.
    predecessor text,
    successor text,
    -- Number of the last change. Triggers set it and override written values.
    revision integer NOT NULL DEFAULT 0
) STRICT;

-- For listing one principal's keys, page by page.
CREATE INDEX api_keys_by_principal ON api_keys (principal, id);

-- For the greatest number in use.
CREATE INDEX api_keys_by_revision ON api_keys (revision);

-- For finding the secrets that have keys.
CREATE INDEX api_keys_secrets ON api_keys (secret) WHERE state = 'active';

-- Fingerprints of the secrets created beside this database: a secret beside an empty database
-- that does not name it has lost its keys.
CREATE TABLE made_beside (secret text PRIMARY KEY NOT NULL) STRICT;

-- Changes in the order in which they became visible: SQLite has one writer at a time.
-- AUTOINCREMENT remembers the greatest number even after rows were deleted.
CREATE TABLE key_changes (
    revision integer PRIMARY KEY AUTOINCREMENT,
    digest blob NOT NULL CHECK (length(digest) = 32),
    -- A canary changes no key: Keystead writes it to measure propagation delay and deletes it
    -- soon afterwards.
    kind text NOT NULL CHECK (kind IN ('created', 'updated', 'revoked', 'deleted', 'canary')),
    changed_at integer NOT NULL
        DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS integer))
) STRICT;

CREATE INDEX key_changes_canaries ON key_changes (changed_at) WHERE kind = 'canary';

-- Number of the next change, greater than all ever assigned and all in use. SQLite's counter
-- alone is not enough: a manual copy may lack its table.
CREATE VIEW next_change (revision) AS SELECT 1 + max(
    COALESCE((SELECT max(seq) FROM sqlite_sequence WHERE name = 'key_changes'), 0),
    COALESCE((SELECT max(revision) FROM key_changes), 0),
    COALESCE((SELECT max(revision) FROM api_keys), 0)
);

-- One row: the greatest number deleted from `key_changes`, canaries excluded, so that a reader
-- that had not read it notices.
CREATE TABLE pruned_changes (through integer NOT NULL) STRICT;

INSERT INTO pruned_changes VALUES (0);

CREATE TRIGGER key_changes_pruned AFTER DELETE ON key_changes
WHEN old.kind <> 'canary'
BEGIN
    UPDATE pruned_changes SET through = old.revision WHERE through < old.revision;
END;

-- Audit log, written in the transaction of each action. Outlives the keys, so `key_id` has no
-- foreign key.
CREATE TABLE audit_log (
    id integer PRIMARY KEY AUTOINCREMENT,
    at integer NOT NULL,
    actor text NOT NULL,
    origin text NOT NULL,
    action text NOT NULL,
    key_id text NOT NULL,
    -- The record as JSON, without its digest; null if there was none.
    before text CHECK (before IS NULL OR json_valid(before)),
    after text CHECK (after IS NULL OR json_valid(after))
) STRICT;

-- Triggers number every change, including those made with plain SQL.

CREATE TRIGGER api_keys_created AFTER INSERT ON api_keys
BEGIN
    INSERT INTO key_changes (revision, digest, kind)
        SELECT revision, new.digest, iif(new.state = 'revoked', 'revoked', 'created')
        FROM next_change;
    UPDATE api_keys SET revision = last_insert_rowid() WHERE id = new.id;
END;

-- INSERT OR REPLACE removes the row that held the id without firing a delete trigger. If that
-- row had another digest, readers must look it up again. (The change is not a deletion: the
-- insert may yet be ignored and keep the row.)
CREATE TRIGGER api_keys_replacing BEFORE INSERT ON api_keys
WHEN EXISTS (SELECT 1 FROM api_keys WHERE id = new.id AND digest <> new.digest)
BEGIN
    INSERT INTO key_changes (revision, digest, kind)
        SELECT next_change.revision, digest, 'updated' FROM next_change, api_keys
        WHERE id = new.id;
END;

-- An update of `last_used_at` alone is no change. The last condition concerns a written
-- revision: that is a change and gets a new number, unless it is the number that a trigger has
-- just assigned to this row. This also ends the recursion, with `PRAGMA recursive_triggers` off
-- or on.
CREATE TRIGGER api_keys_updated
AFTER UPDATE OF id, digest, secret, hint, principal, name, scopes, allowed_networks, audiences,
    metadata, state, not_before, expires_at, created_at, predecessor, successor, revision
ON api_keys
WHEN old.digest = new.digest AND (
    (old.id, old.secret, old.hint, old.principal, old.name, old.scopes, old.allowed_networks,
        old.audiences, old.metadata, old.state, old.not_before, old.expires_at, old.created_at,
        old.predecessor, old.successor)
    IS NOT
    (new.id, new.secret, new.hint, new.principal, new.name, new.scopes, new.allowed_networks,
        new.audiences, new.metadata, new.state, new.not_before, new.expires_at, new.created_at,
        new.predecessor, new.successor)
    OR old.revision <> new.revision AND NOT EXISTS (
        SELECT 1 FROM key_changes
        WHERE revision = new.revision AND digest = new.digest
            AND revision = (SELECT max(revision) FROM key_changes)
    )
)
BEGIN
    INSERT INTO key_changes (revision, digest, kind)
        SELECT revision, new.digest, iif(new.state = 'revoked', 'revoked', 'updated')
        FROM next_change;
    UPDATE api_keys SET revision = last_insert_rowid() WHERE id = new.id;
END;

-- A record that moves to another digest disappears from the old one.
CREATE TRIGGER api_keys_moved AFTER UPDATE OF digest ON api_keys
WHEN old.digest <> new.digest
BEGIN
    INSERT INTO key_changes (revision, digest, kind)
        SELECT revision, old.digest, 'deleted' FROM next_change;
    INSERT INTO key_changes (revision, digest, kind)
        SELECT revision, new.digest, iif(new.state = 'revoked', 'revoked', 'created')
        FROM next_change;
    UPDATE api_keys SET revision = last_insert_rowid() WHERE id = new.id;
END;

CREATE TRIGGER api_keys_deleted AFTER DELETE ON api_keys
BEGIN
    INSERT INTO key_changes (revision, digest, kind)
        SELECT revision, old.digest, 'deleted' FROM next_change;
END;
