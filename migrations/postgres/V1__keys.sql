-- Keys, their numbered changes, and the audit log.
--
-- `keystead migrate` creates the schema `keystead` first. All names are schema-qualified, so
-- that search_path does not matter.

CREATE SEQUENCE keystead.revision_seq AS bigint;

CREATE TABLE keystead.api_keys (
    -- Byte order, so that pages are the same in every locale of the database.
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
    predecessor      text,
    successor        text,
    -- A trigger replaces the default with the number.
    revision         bigint NOT NULL DEFAULT 0
)
-- Leaves room on each page for the new version of a row when only last_used_at changes.
WITH (fillfactor = 90);

CREATE INDEX api_keys_principal ON keystead.api_keys (principal, id);

-- For the greatest number in use.
CREATE INDEX api_keys_revision ON keystead.api_keys (revision);

-- For finding the secrets that have keys.
CREATE INDEX api_keys_secrets ON keystead.api_keys (secret) WHERE state = 'active';

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
COMMENT ON COLUMN keystead.api_keys.predecessor IS
    'Id of the key that this one was minted to replace; NULL for any other.';
COMMENT ON COLUMN keystead.api_keys.successor IS
    'Id of the key that was minted last to replace this one; NULL for one that was not rotated.';
COMMENT ON COLUMN keystead.api_keys.revision IS
    'Number of the last change; set by a trigger at commit, whatever is written.';

CREATE TABLE keystead.key_changes (
    revision   bigint PRIMARY KEY,
    digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
    kind       text NOT NULL CHECK (kind IN ('created', 'updated', 'revoked', 'deleted', 'canary')),
    changed_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX key_changes_canaries ON keystead.key_changes (changed_at) WHERE kind = 'canary';

COMMENT ON TABLE keystead.key_changes IS
    'What happened to which digest, numbered in the order in which the changes became visible. Written by triggers on api_keys. A canary is no change of a key: a server writes it to measure how long changes take to reach it.';

-- Numbers may have gaps, as those of rolled-back transactions are not reused. Deletions are
-- recorded, so that a reader can distinguish such a gap from changes deleted before it read
-- them.
CREATE TABLE keystead.pruned_changes (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    through  bigint NOT NULL
);

INSERT INTO keystead.pruned_changes (through) VALUES (0);

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

-- The greatest number in the table is the head that readers follow. Unlike the sequence, it
-- grows in commit order; it never falls, because the newest row is kept when old ones are
-- deleted.
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

-- A sequence assigns numbers in the order of calls, but transactions become visible in the
-- order of commits. Without a lock, a reader could read number 8, continue from there, and
-- never see number 7, which commits later. So numbers are assigned under a lock, which
-- PostgreSQL releases after the transaction has become visible: whoever takes a number sees all
-- smaller ones.
--
-- The lock is on a separate table on which only the owner of the schema has rights, so that no
-- other role can block changes. It is taken as late as possible, by triggers that run at
-- commit: a transaction that has changed a key and then does something else, or nothing, blocks
-- only changes of the same key.
--
-- There are no deadlocks, as the lock is the last one that a transaction waits for. A waiter
-- may hold row locks of api_keys; the holder waits for none of them, as numbering changes only
-- rows that its own transaction has changed. Recording uses locks rows in the order of ids, and
-- never takes this lock. Deleting old changes never takes it either, and canaries skip rows
-- that another transaction is deleting. The exception is a transaction that requests its
-- numbers early (SET CONSTRAINTS … IMMEDIATE) and then changes another key: PostgreSQL detects
-- the deadlock and ends one of the two.
CREATE TABLE keystead.change_order (
    only_row boolean PRIMARY KEY CHECK (only_row)
);

COMMENT ON TABLE keystead.change_order IS
    'Empty. Locked by each transaction that changes keys, from the numbering of its changes to its end.';

CREATE FUNCTION keystead.lock_changes() RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    LOCK TABLE keystead.change_order IN EXCLUSIVE MODE;
END
$$;

COMMENT ON FUNCTION keystead.lock_changes() IS
    'Waits until no other transaction is numbering changes, and keeps others from it until this one ends.';

-- The sequence alone is not enough: logical replication does not carry it, and a manual restore
-- may omit it. A number not greater than all in use would be refused as a duplicate, or ignored
-- by readers as already read.
CREATE FUNCTION keystead.next_revision() RETURNS bigint
    LANGUAGE plpgsql
    AS $$
DECLARE
    number  bigint;
    used    bigint;
    by_this boolean;
BEGIN
    PERFORM keystead.lock_changes();
    number := nextval('keystead.revision_seq');
    SELECT revision, xmin = pg_current_xact_id()::xid INTO used, by_this
        FROM keystead.key_changes ORDER BY revision DESC LIMIT 1;
    -- Once per transaction: after a large DELETE the index is full of dead rows, and searching
    -- the greatest number scans all of them.
    IF by_this IS NOT TRUE THEN
        used := greatest(used, (SELECT max(revision) FROM keystead.api_keys));
    END IF;
    IF number <= used THEN
        number := setval('keystead.revision_seq', used + 1);
    END IF;
    RETURN number;
END
$$;

COMMENT ON FUNCTION keystead.next_revision() IS
    'The number of the next change, greater than all that are in use, under the lock.';

REVOKE ALL ON FUNCTION keystead.lock_changes(), keystead.next_revision() FROM PUBLIC;

-- The numbers of the audit log come from a sequence too.
CREATE FUNCTION keystead.number_entry() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    newest bigint;
BEGIN
    PERFORM keystead.lock_changes();
    SELECT max(id) INTO newest FROM keystead.audit_log;
    IF NEW.id <= newest THEN
        NEW.id := setval('keystead.audit_log_id_seq', newest + 1);
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION keystead.number_entry() IS
    'Gives an entry of the audit log a number that is greater than all that are in use.';

CREATE TRIGGER number_entry
    BEFORE INSERT ON keystead.audit_log
    FOR EACH ROW EXECUTE FUNCTION keystead.number_entry();

-- The table is authoritative; this only wakes followers. PostgreSQL delivers it once per
-- transaction, after the transaction has become visible.
CREATE FUNCTION keystead.announce_changes() RETURNS void
    LANGUAGE sql
    AS $$ SELECT pg_catalog.pg_notify('keystead_changes', '') $$;

COMMENT ON FUNCTION keystead.announce_changes() IS
    'Wakes the servers that listen on the channel keystead_changes, so that they read key_changes.';

-- Trigger functions run with the rights of their owner, so that a role that may write api_keys
-- needs no rights on the tables that triggers write.

CREATE FUNCTION keystead.keep_revision() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.revision := 0;
    ELSIF NEW.revision < OLD.revision OR NOT EXISTS (
        SELECT FROM keystead.key_changes WHERE revision = NEW.revision AND digest = NEW.digest
    ) THEN
        NEW.revision := OLD.revision;
    END IF;
    RETURN NEW;
END
$$;

COMMENT ON FUNCTION keystead.keep_revision() IS
    'Lets nothing into the column revision but the number of a recorded change of the same key.';

CREATE FUNCTION keystead.number_change() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    number bigint;
BEGIN
    IF TG_OP = 'DELETE' OR NEW.digest <> OLD.digest THEN
        INSERT INTO keystead.key_changes (revision, digest, kind)
        VALUES (keystead.next_revision(), OLD.digest, 'deleted');
    END IF;
    IF TG_OP <> 'DELETE' THEN
        number := keystead.next_revision();
        INSERT INTO keystead.key_changes (revision, digest, kind)
        VALUES (number, NEW.digest, CASE
            WHEN NEW.state = 'revoked' THEN 'revoked'
            WHEN NEW.digest = OLD.digest THEN 'updated'
            ELSE 'created'
        END);
        -- No row if the transaction has deleted it since. Records no further change: the update
        -- trigger ignores this column.
        UPDATE keystead.api_keys SET revision = number WHERE digest = NEW.digest;
    END IF;
    PERFORM keystead.announce_changes();
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION keystead.number_change() IS
    'Writes key_changes at commit, puts the number into the row, and announces it. A key whose digest is changed is a deleted one and a created one.';

CREATE TRIGGER keep_revision_of_new
    BEFORE INSERT ON keystead.api_keys
    FOR EACH ROW WHEN (NEW.revision <> 0)
    EXECUTE FUNCTION keystead.keep_revision();

CREATE TRIGGER keep_revision
    BEFORE UPDATE ON keystead.api_keys
    FOR EACH ROW WHEN (NEW.revision <> OLD.revision)
    EXECUTE FUNCTION keystead.keep_revision();

CREATE CONSTRAINT TRIGGER number_creation
    AFTER INSERT ON keystead.api_keys DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION keystead.number_change();

-- Neither an update of last_used_at alone nor the numbering is a change.
CREATE CONSTRAINT TRIGGER number_update
    AFTER UPDATE ON keystead.api_keys DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (
        (OLD.id, OLD.digest, OLD.secret, OLD.hint, OLD.principal, OLD.name, OLD.scopes,
            OLD.allowed_networks, OLD.audiences, OLD.metadata, OLD.state, OLD.not_before,
            OLD.expires_at, OLD.created_at, OLD.predecessor, OLD.successor)
        IS DISTINCT FROM
        (NEW.id, NEW.digest, NEW.secret, NEW.hint, NEW.principal, NEW.name, NEW.scopes,
            NEW.allowed_networks, NEW.audiences, NEW.metadata, NEW.state, NEW.not_before,
            NEW.expires_at, NEW.created_at, NEW.predecessor, NEW.successor)
    )
    EXECUTE FUNCTION keystead.number_change();

CREATE CONSTRAINT TRIGGER number_deletion
    AFTER DELETE ON keystead.api_keys DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION keystead.number_change();

-- PostgreSQL's own view hides from most roles what other sessions do, but not who they are.
CREATE FUNCTION keystead.describe_session(pid integer) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
    SELECT COALESCE(
        (SELECT format(
            'pid %s (%s, role %s)%s; end it with SELECT pg_terminate_backend(%s)',
            s.pid, COALESCE(NULLIF(s.application_name, ''), 'no application_name'), s.usename,
            ', in a transaction since ' || to_char(s.xact_start, 'YYYY-MM-DD HH24:MI:SSOF'), s.pid)
        FROM pg_stat_activity AS s WHERE s.pid = describe_session.pid),
        'a transaction without a session; look in pg_prepared_xacts')
$$;

COMMENT ON FUNCTION keystead.describe_session(integer) IS
    'Who holds something up, as far as the caller may know, and how to end it.';

-- Returns why a change could not be written, where it is blocked or disabled, instead of
-- failing, so that the server's log does not fill up.
CREATE FUNCTION keystead.canary(token bytea, OUT blocked_by text, OUT broken text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    patience numeric := 1000 * extract(epoch FROM current_setting('statement_timeout')::interval);
BEGIN
    IF EXISTS (
        SELECT FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
        WHERE t.tgrelid = 'keystead.api_keys'::regclass
            AND p.pronamespace = 'keystead'::regnamespace AND t.tgenabled IN ('D', 'R')
    ) THEN
        broken := 'triggers on keystead.api_keys are off: '
            'ALTER TABLE keystead.api_keys ENABLE TRIGGER ALL';
        RETURN;
    END IF;

    -- Ends before the statement does, so that the blocker can be reported; and within a second,
    -- however long a statement may take.
    PERFORM set_config('lock_timeout', greatest(1, least(1000, floor(patience / 3)))::text, true);
    BEGIN
        -- Locks the tables in the same order as a change of a key.
        LOCK TABLE keystead.api_keys IN ROW EXCLUSIVE MODE;
        PERFORM keystead.lock_changes();
        LOCK TABLE keystead.key_changes, keystead.audit_log IN ROW EXCLUSIVE MODE;
    EXCEPTION WHEN lock_not_available THEN
        SELECT format('a lock on %s is held by %s', l.relation::regclass,
                keystead.describe_session(l.pid))
            INTO blocked_by
            FROM pg_locks AS l LEFT JOIN pg_stat_activity AS s USING (pid)
            WHERE l.locktype = 'relation' AND l.pid IS DISTINCT FROM pg_backend_pid()
                AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (l.relation = 'keystead.change_order'::regclass AND l.mode <> 'AccessShareLock'
                    OR l.relation IN ('keystead.api_keys'::regclass,
                            'keystead.key_changes'::regclass, 'keystead.audit_log'::regclass)
                        AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                            'AccessExclusiveLock'))
            ORDER BY l.granted DESC, s.xact_start LIMIT 1;
        blocked_by := COALESCE(blocked_by, 'a lock on a table of keystead is held by another session');
        RETURN;
    END;

    INSERT INTO keystead.key_changes (revision, digest, kind)
        VALUES (keystead.next_revision(), token, 'canary');
    DELETE FROM keystead.key_changes WHERE revision IN (
        SELECT revision FROM keystead.key_changes
        WHERE kind = 'canary' AND changed_at < now() - interval '1 minute'
        FOR UPDATE SKIP LOCKED
    );
    PERFORM keystead.announce_changes();
END
$$;

REVOKE ALL ON FUNCTION keystead.canary(bytea) FROM PUBLIC;

COMMENT ON FUNCTION keystead.canary(bytea) IS
    'Writes a change that changes no key and takes the way of all others: under the lock, numbered, announced. Tells what is in the way instead, if something is. Deletes canaries that are older than a minute. The token has 32 bytes.';
