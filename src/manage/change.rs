//! Changes the state of a key.

use crate::{
    key::{Action, KeyId, KeyRecord},
    store::{KeyAdmin, Provenance, WriteError},
};

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateChange {
    /// See [`Action::Disable`].
    Disable,
    /// See [`Action::Enable`].
    Enable,
    /// See [`Action::Revoke`].
    Revoke,
}

/// Changes the state of a key, and returns its record after the change.
pub async fn change_state<S: KeyAdmin>(
    store: &S,
    id: &KeyId,
    change: StateChange,
    by: &Provenance,
) -> Result<KeyRecord, WriteError> {
    let action = match change {
        StateChange::Disable => Action::Disable,
        StateChange::Enable => Action::Enable,
        StateChange::Revoke => Action::Revoke,
    };
    store.act(id, action, None, by).await
}
