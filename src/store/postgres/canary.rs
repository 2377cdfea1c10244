//! Writes canaries and explains failures.

use tokio_postgres::{config::TargetSessionAttrs, types::Type};

use super::{
    PostgresStore,
    call::{Pace, param},
    rows,
};
use crate::{
    key::Digest,
    store::{CanaryError, StoreError, StoreErrorKind},
};

/// Whether this server accepts canaries from this role. Reads the catalogue, as naming the
/// function requires a right on its schema.
const TAKES_CANARIES: &str = "\
    SELECT pg_is_in_recovery(), COALESCE((\
        SELECT has_function_privilege(p.oid, 'EXECUTE') \
            AND has_schema_privilege(p.pronamespace, 'USAGE') \
        FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace \
        WHERE n.nspname = 'keystead' AND p.proname = 'canary'), false)";

/// The server reports blockers in time: it waits for a lock for a third of the statement's
/// time-out.
pub(super) async fn write(store: &PostgresStore, token: &Digest) -> Result<(), CanaryError> {
    const SQL: &str = "SELECT blocked_by, broken FROM keystead.canary($1)";
    let token = &token.as_bytes()[..];
    let written = store.query(SQL, &[param(&token, Type::BYTEA)], Pace::Lookup).await;
    let refused = match written {
        Ok(rows) => {
            let (blocked_by, broken): (Option<String>, Option<String>) =
                rows.first().map_or(Ok((None, None)), rows::pair)?;
            let blocked = blocked_by.map(|who| StoreError::new(StoreErrorKind::Blocked, who));
            let broken = broken.map(|what| StoreError::new(StoreErrorKind::Schema, what));
            return blocked.or(broken).map_or(Ok(()), |why| Err(why.into()));
        }
        Err(refused) if refused.kind() == StoreErrorKind::Forbidden => refused,
        Err(failed) => return Err(failed.into()),
    };
    let rows = store.query(TAKES_CANARIES, &[], Pace::Lookup).await?;
    let (is_standby, may): (bool, bool) = rows.first().map_or(Ok((false, true)), rows::pair)?;
    let standby_is_fine =
        store.dialer.driver.get_target_session_attrs() != TargetSessionAttrs::ReadWrite;
    if is_standby && standby_is_fine {
        Err(CanaryError::ReadOnly("the server is a standby".to_owned()))
    } else if !is_standby && !may {
        Err(CanaryError::ReadOnly(refused.detail().to_owned()))
    } else {
        Err(refused.into())
    }
}
