-- Keys, the numbered changes to them, and who changed what.
--
-- `keystead migrate` makes the schema `keystead` before this runs. Everything
-- is named with its schema, so that no search_path matters.

CREATE SEQUENCE keystead.revision_seq AS bigint;

CREATE TABLE keystead.api_keys (
    -- In the order of bytes, so that pages are the same whatever the locale of
    -- the database.
    id               text COLLATE "C" PRIMARY KEY CHECK (id <> ''),
    digest           bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    secret           text,
    hint             text NOT NULL DEFAULT '',
    principal        text NOT NULL CHECK (principal <> ''),
    name             text NOT NULL DEFAULT '',
    scopes           text[] NOT NULL DEFAULT '{}',
    allowed_networks cidr[] NOT NULL DEFAULT '{}',
    audiences        text[] NOT NULL DEFAULT '{}',
    metadata         jsonb NOT NULL DEFAULT '{}' CHECK (
        jsonb_typeof(metadata) = 'object'
        AND NOT jsonb_path_exists(metadata, '$.* ? (@.type() <> "string")')
    ),
    state            text NOT NULL DEFAULT 'active'
                     CHECK (state IN ('active', 'disabled', 'revoked')),
    not_before       timestamptz,
    expires_at       timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    last_used_at     timestamptz,
    -- The default never stays: a trigger puts the number in.
    revision         bigint NOT NULL DEFAULT 0
)
-- Room on each page for the new version of a row when only last_used_at changes.
WITH (fillfactor = 90);

CREATE INDEX api_keys_principal ON keystead.api_keys (principal, id);

COMMENT ON TABLE keystead.api_keys IS
    'API keys. May be changed with plain SQL: triggers number every change, and all servers learn of it. TRUNCATE is not recorded: servers take it for a loss of data, and go on with the keys that they know. To end keys, UPDATE or DELETE them.';
COMMENT ON COLUMN keystead.api_keys.id IS 'Public name of the key, key_…; not secret.';
COMMENT ON COLUMN keystead.api_keys.digest IS
    'HMAC-SHA-256 of the key under the secret, or SHA-256 for an imported key; 32 bytes. The key itself is stored nowhere.';
COMMENT ON COLUMN keystead.api_keys.secret IS
    'Fingerprint of the secret that the digest was made with, 16 hex digits; NULL for an imported key.';
COMMENT ON COLUMN keystead.api_keys.hint IS 'What may be displayed: prefix and last four digits.';
COMMENT ON COLUMN keystead.api_keys.principal IS 'Whose key it is.';
COMMENT ON COLUMN keystead.api_keys.name IS 'What people call the key.';
COMMENT ON COLUMN keystead.api_keys.scopes IS 'What the key may do; compared as whole strings.';
COMMENT ON COLUMN keystead.api_keys.allowed_networks IS
    'From where it may be used; empty means from anywhere.';
COMMENT ON COLUMN keystead.api_keys.audiences IS
    'For which services it may be used; empty means for any.';
COMMENT ON COLUMN keystead.api_keys.metadata IS
    'Object of strings that is handed to the caller with every answer.';
COMMENT ON COLUMN keystead.api_keys.state IS
    'active, disabled (until enabled again) or revoked (for ever, as far as keystead itself is concerned).';
COMMENT ON COLUMN keystead.api_keys.not_before IS 'Not valid before; NULL means from the start.';
COMMENT ON COLUMN keystead.api_keys.expires_at IS 'Not valid from then on; NULL means never.';
COMMENT ON COLUMN keystead.api_keys.last_used_at IS
    'To about a minute. Changing it alone is not a change and gets no number.';
COMMENT ON COLUMN keystead.api_keys.revision IS
    'Number of the last change; set by a trigger, whatever is written.';

CREATE TABLE keystead.key_changes (
    revision   bigint PRIMARY KEY,
    digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
    kind       text NOT NULL CHECK (kind IN ('created', 'updated', 'deleted', 'canary')),
    changed_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX key_changes_canaries ON keystead.key_changes (changed_at) WHERE kind = 'canary';

COMMENT ON TABLE keystead.key_changes IS
    'What happened to which digest, numbered in the order in which the changes became visible. Written by triggers on api_keys. A canary is no change of a key: a server writes it to measure how long changes take to reach it.';

-- Numbers may have gaps, as those of transactions that were rolled back are not
-- given out again. So that a reader can tell such a gap from changes that were
-- deleted before it read them, what is deleted is noted.
CREATE TABLE keystead.pruned_changes (
    through bigint NOT NULL
);

INSERT INTO keystead.pruned_changes VALUES (0);

GRANT SELECT ON keystead.pruned_changes TO PUBLIC;

COMMENT ON TABLE keystead.pruned_changes IS
    'One row, set by a trigger: the greatest number of a change that was deleted from key_changes, canaries left aside.';

CREATE FUNCTION keystead.note_pruned_changes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    UPDATE keystead.pruned_changes
        SET through = pruned.newest
        FROM (SELECT max(revision) AS newest FROM gone WHERE kind <> 'canary') AS pruned
        WHERE through < pruned.newest;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION keystead.note_pruned_changes() IS
    'Notes how far changes were deleted, so that a reader who had not read them knows.';

CREATE TRIGGER c_note_pruned_changes
    AFTER DELETE ON keystead.key_changes
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION keystead.note_pruned_changes();

-- The greatest number in the table tells readers how far changes go. Unlike the
-- sequence it grows in the order of commits; so that it never falls, the newest
-- row stays when old ones are deleted.
CREATE FUNCTION keystead.keep_newest_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'keystead.key_changes cannot be truncated: its newest row must stay'
            USING HINT = 'DELETE old rows; the newest stays by itself.';
    END IF;
    IF OLD.revision = (SELECT max(revision) FROM keystead.key_changes) THEN
        RETURN NULL;
    END IF;
    RETURN OLD;
END
$$;

COMMENT ON FUNCTION keystead.keep_newest_change() IS
    'Lets old rows of key_changes be deleted, but not the newest.';

CREATE TRIGGER a_keep_newest_change
    BEFORE DELETE ON keystead.key_changes
    FOR EACH ROW EXECUTE FUNCTION keystead.keep_newest_change();

CREATE TRIGGER b_refuse_truncate
    BEFORE TRUNCATE ON keystead.key_changes
    FOR EACH STATEMENT EXECUTE FUNCTION keystead.keep_newest_change();

COMMENT ON COLUMN keystead.key_changes.changed_at IS 'When the transaction of the change began.';

CREATE TABLE keystead.audit_log (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL,
    actor  text NOT NULL,
    origin text NOT NULL,
    action text NOT NULL,
    key_id text NOT NULL,
    before jsonb,
    after  jsonb
);

CREATE INDEX audit_log_key_id ON keystead.audit_log (key_id, id);

COMMENT ON TABLE keystead.audit_log IS
    'Changes that keystead itself made, each written in the transaction of the change. Plain SQL is in key_changes only.';
COMMENT ON COLUMN keystead.audit_log.actor IS 'Who, for example cli:alice.';
COMMENT ON COLUMN keystead.audit_log.origin IS 'From where, for example the name of a host.';
COMMENT ON COLUMN keystead.audit_log.before IS 'The record before, without its digest; NULL for a new key.';
COMMENT ON COLUMN keystead.audit_log.after IS 'The record afterwards, without its digest.';

-- A sequence gives out numbers in the order in which it is asked, but
-- transactions become visible in the order in which they commit. Without the
-- lock, a reader could see number 8, go on from there, and never learn of number
-- 7, which commits later. PostgreSQL releases a transaction-level lock after the
-- transaction has become visible, so that whoever takes a number sees all
-- smaller ones. The price: transactions that change keys run one after another.
CREATE FUNCTION keystead.lock_changes() RETURNS void
    LANGUAGE sql
    -- The key is the word `keystead` in ASCII.
    AS $$ SELECT pg_catalog.pg_advisory_xact_lock(x'6b65797374656164'::bigint) $$;

COMMENT ON FUNCTION keystead.lock_changes() IS
    'Waits until no other transaction is changing keys, and keeps others from it until this one ends.';

CREATE FUNCTION keystead.next_revision() RETURNS bigint
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM keystead.lock_changes();
    RETURN pg_catalog.nextval('keystead.revision_seq');
END
$$;

REVOKE ALL ON FUNCTION keystead.next_revision() FROM PUBLIC;

COMMENT ON FUNCTION keystead.next_revision() IS 'The number of the next change, under the lock.';

-- The trigger functions run with the rights of their owner, so that a role that
-- may write api_keys needs no rights on what the triggers write.

CREATE FUNCTION keystead.lock_before_rows() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    PERFORM keystead.lock_changes();
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION keystead.lock_before_rows() IS
    'Takes the lock before the statement locks its first row, so that two statements cannot wait for each other.';

CREATE FUNCTION keystead.number_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    counted keystead.api_keys;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        counted := NEW;
        counted.last_used_at := OLD.last_used_at;
        counted.revision := OLD.revision;
        IF counted IS NOT DISTINCT FROM OLD THEN
            NEW.revision := OLD.revision;
            RETURN NEW;
        END IF;
        IF NEW.digest <> OLD.digest THEN
            -- For the deletion of the old digest, which comes first. Numbers are
            -- given out under the lock, so that the next one follows it.
            PERFORM keystead.next_revision();
        END IF;
    END IF;
    NEW.revision := keystead.next_revision();
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION keystead.number_change() IS
    'Puts the next number into a changed row, whatever was written there. An update of last_used_at alone is no change.';

CREATE FUNCTION keystead.record_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO keystead.key_changes (revision, digest, kind)
        VALUES (NEW.revision, NEW.digest, 'created');
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO keystead.key_changes (revision, digest, kind)
        VALUES (keystead.next_revision(), OLD.digest, 'deleted');
    ELSIF NEW.digest = OLD.digest THEN
        INSERT INTO keystead.key_changes (revision, digest, kind)
        VALUES (NEW.revision, NEW.digest, 'updated');
    ELSE
        INSERT INTO keystead.key_changes (revision, digest, kind)
        VALUES (NEW.revision - 1, OLD.digest, 'deleted'),
               (NEW.revision, NEW.digest, 'created');
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION keystead.record_change() IS
    'Writes key_changes. A key whose digest is changed is a deleted one and a created one.';

-- last_used_at and revision are left out: noting uses must not wait for changes.
CREATE TRIGGER a_lock_before_rows
    BEFORE INSERT OR DELETE OR UPDATE OF
        id, digest, secret, hint, principal, name, scopes, allowed_networks, audiences, metadata,
        state, not_before, expires_at, created_at
    ON keystead.api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION keystead.lock_before_rows();

CREATE TRIGGER b_number_change
    BEFORE INSERT OR UPDATE ON keystead.api_keys
    FOR EACH ROW EXECUTE FUNCTION keystead.number_change();

CREATE TRIGGER c_record_change
    AFTER INSERT OR DELETE ON keystead.api_keys
    FOR EACH ROW EXECUTE FUNCTION keystead.record_change();

CREATE TRIGGER d_record_update
    AFTER UPDATE ON keystead.api_keys
    FOR EACH ROW WHEN (NEW.revision <> OLD.revision)
    EXECUTE FUNCTION keystead.record_change();

-- The table is the truth, and this only wakes those who follow it. PostgreSQL
-- delivers it when the transaction has become visible, once for each.
CREATE FUNCTION keystead.announce_changes() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('keystead_changes', '');
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION keystead.announce_changes() IS
    'Wakes the servers that listen on the channel keystead_changes, so that they read key_changes.';

CREATE TRIGGER e_announce_changes
    AFTER INSERT OR DELETE OR UPDATE OF
        id, digest, secret, hint, principal, name, scopes, allowed_networks, audiences, metadata,
        state, not_before, expires_at, created_at
    ON keystead.api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION keystead.announce_changes();

CREATE FUNCTION keystead.canary(token bytea) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    number bigint;
BEGIN
    number := keystead.next_revision();
    INSERT INTO keystead.key_changes (revision, digest, kind) VALUES (number, token, 'canary');
    DELETE FROM keystead.key_changes
        WHERE kind = 'canary' AND changed_at < now() - interval '1 minute';
    PERFORM pg_catalog.pg_notify('keystead_changes', '');
    RETURN number;
END
$$;

REVOKE ALL ON FUNCTION keystead.canary(bytea) FROM PUBLIC;

COMMENT ON FUNCTION keystead.canary(bytea) IS
    'Writes a change that changes no key and takes the way of all others: under the lock, numbered, announced. Deletes canaries that are older than a minute. The token has 32 bytes.';
