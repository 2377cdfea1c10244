-- Keys, their numbered changes, and who changed them.
--
-- Times are whole microseconds since 1970-01-01T00:00:00Z; null means never.
-- Everything here also works in the `sqlite3` shell of older distributions
-- (SQLite 3.38 and later), so that changes may be made with plain SQL.

CREATE TABLE api_keys (
    -- The public name of the key.
    id text PRIMARY KEY NOT NULL CHECK (id <> ''),
    -- Under what the key is looked up; the key itself is kept nowhere.
    digest blob NOT NULL UNIQUE CHECK (length(digest) = 32),
    -- Fingerprint of the secret that the key was minted with. Null for an
    -- imported key, whose digest is a plain SHA-256.
    secret text,
    -- What may be displayed of the key.
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
    -- A JSON object whose values are strings.
    metadata text NOT NULL DEFAULT '{}'
        CHECK (json_valid(metadata) AND json_type(metadata) = 'object'),
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled', 'revoked')),
    not_before integer,
    expires_at integer,
    created_at integer NOT NULL
        DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS integer)),
    last_used_at integer,
    -- The ids of the key that this one was minted to replace, and of the one that
    -- was minted last to replace it.
    predecessor text,
    successor text,
    -- The number of the last change. The triggers below set it, whatever is
    -- written here.
    revision integer NOT NULL DEFAULT 0
) STRICT;

-- For lists of one principal's keys, page by page.
CREATE INDEX api_keys_by_principal ON api_keys (principal, id);

-- For the greatest number that is in use.
CREATE INDEX api_keys_by_revision ON api_keys (revision);

-- For the question which secrets have keys.
CREATE INDEX api_keys_secrets ON api_keys (secret) WHERE state = 'active';

-- The secrets that were made beside this database, by their fingerprints: a secret
-- beside an empty database that it does not name has lost its keys.
CREATE TABLE made_beside (secret text PRIMARY KEY NOT NULL) STRICT;

-- What changed, in the order in which it became visible: SQLite has one writer
-- at a time. With AUTOINCREMENT it remembers the greatest number, also when rows
-- were deleted here.
CREATE TABLE key_changes (
    revision integer PRIMARY KEY AUTOINCREMENT,
    digest blob NOT NULL CHECK (length(digest) = 32),
    -- A canary is no change of a key: keystead writes it to measure how long
    -- changes take to be noticed, and deletes it soon afterwards.
    kind text NOT NULL CHECK (kind IN ('created', 'updated', 'revoked', 'deleted', 'canary')),
    changed_at integer NOT NULL
        DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000000 AS integer))
) STRICT;

CREATE INDEX key_changes_canaries ON key_changes (changed_at) WHERE kind = 'canary';

-- The number of the next change, greater than all that were given out and all
-- that are in use. What SQLite has counted alone does not do: it is a table that
-- a copy made by hand may lack.
CREATE VIEW next_change (revision) AS SELECT 1 + max(
    COALESCE((SELECT max(seq) FROM sqlite_sequence WHERE name = 'key_changes'), 0),
    COALESCE((SELECT max(revision) FROM key_changes), 0),
    COALESCE((SELECT max(revision) FROM api_keys), 0)
);

-- One row: the greatest number of a change that was deleted from `key_changes`,
-- canaries left aside, so that a reader who had not read it knows.
CREATE TABLE pruned_changes (through integer NOT NULL) STRICT;

INSERT INTO pruned_changes VALUES (0);

CREATE TRIGGER key_changes_pruned AFTER DELETE ON key_changes
WHEN old.kind <> 'canary'
BEGIN
    UPDATE pruned_changes SET through = old.revision WHERE through < old.revision;
END;

-- What keystead did, written in the transaction in which it was done. Outlives
-- the keys, so that `key_id` refers to nothing.
CREATE TABLE audit_log (
    id integer PRIMARY KEY AUTOINCREMENT,
    at integer NOT NULL,
    actor text NOT NULL,
    origin text NOT NULL,
    action text NOT NULL,
    key_id text NOT NULL,
    -- The record as JSON, without its digest; null when there was none.
    before text CHECK (before IS NULL OR json_valid(before)),
    after text CHECK (after IS NULL OR json_valid(after))
) STRICT;

-- The triggers number every change, those made with plain SQL too.

CREATE TRIGGER api_keys_created AFTER INSERT ON api_keys
BEGIN
    INSERT INTO key_changes (revision, digest, kind)
        SELECT revision, new.digest, iif(new.state = 'revoked', 'revoked', 'created')
        FROM next_change;
    UPDATE api_keys SET revision = last_insert_rowid() WHERE id = new.id;
END;

-- INSERT OR REPLACE removes the row that held the id without a delete trigger.
-- If that row had another digest, readers are told to look at it again. (It is
-- not called deleted: the insert may yet be ignored and leave the row alone.)
CREATE TRIGGER api_keys_replacing BEFORE INSERT ON api_keys
WHEN EXISTS (SELECT 1 FROM api_keys WHERE id = new.id AND digest <> new.digest)
BEGIN
    INSERT INTO key_changes (revision, digest, kind)
        SELECT next_change.revision, digest, 'updated' FROM next_change, api_keys
        WHERE id = new.id;
END;

-- `last_used_at` alone is no change. The last condition is for a revision that
-- somebody wrote: it is a change, and so gets its right number, unless it is
-- the number that a trigger here has just given to this very row. That also
-- ends the recursion, with `PRAGMA recursive_triggers` off or on.
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

-- A record that moves to another digest is gone from the old one.
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
