//! What may become of a key: the rules that both stores apply inside their
//! transactions.

use jiff::Timestamp;

use super::{KeyRecord, NewKey, Rights, State};

/// Something that is done to a stored key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Stop it until it is enabled again.
    Disable,
    /// Let it be used again.
    Enable,
    /// Stop it for ever.
    Revoke,
    /// Let it expire at the given instant, or earlier if it does anyway,
    /// because a successor takes its place.
    Rotate {
        /// When the old key stops being valid.
        retire_at: Timestamp,
    },
}

/// The key that takes the place of a rotated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// The new key. Its rights are replaced by those of the old one.
    pub key: NewKey,
    /// When the new key expires; absent means when the old one would have.
    pub expires_at: Option<Timestamp>,
}

/// An action that the state of the key does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleError {
    /// Revoked is final.
    #[error("it is revoked, and that is final; mint a new key with `keystead keys create`")]
    Revoked,
    /// A disabled key has no use for a successor.
    #[error("it is disabled; enable it first, or mint a new key with `keystead keys create`")]
    Disabled,
    /// The rights of an expired key have ended.
    #[error("it has expired; mint a new key with `keystead keys create`")]
    Expired,
}

impl Action {
    /// The word in the audit log and on the command line.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Enable => "enable",
            Self::Revoke => "revoke",
            Self::Rotate { .. } => "rotate",
        }
    }

    /// The state and expiry that the key has afterwards. Doing what is already
    /// done is no error.
    pub fn apply(
        self,
        record: &KeyRecord,
        now: Timestamp,
    ) -> Result<(State, Option<Timestamp>), LifecycleError> {
        let expires_at = record.rights.expires_at;
        let revoked = record.state == State::Revoked;
        match self {
            Self::Revoke => Ok((State::Revoked, expires_at)),
            Self::Disable | Self::Enable | Self::Rotate { .. } if revoked => {
                Err(LifecycleError::Revoked)
            }
            Self::Disable => Ok((State::Disabled, expires_at)),
            Self::Enable => Ok((State::Active, expires_at)),
            Self::Rotate { .. } if record.state == State::Disabled => Err(LifecycleError::Disabled),
            Self::Rotate { .. } if expires_at.is_some_and(|end| end <= now) => {
                Err(LifecycleError::Expired)
            }
            Self::Rotate { retire_at } => {
                Ok((record.state, Some(expires_at.map_or(retire_at, |end| end.min(retire_at)))))
            }
        }
    }
}

impl Successor {
    /// The new key with the rights that the old one has.
    #[must_use]
    pub fn inherit(&self, old: &KeyRecord) -> NewKey {
        let rights =
            Rights { expires_at: self.expires_at.or(old.rights.expires_at), ..old.rights.clone() };
        NewKey { rights, ..self.key.clone() }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;
    use crate::key::Revision;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn record(state: State, expires_at: Option<Timestamp>) -> KeyRecord {
        KeyRecord {
            id: "key_1".parse().unwrap(),
            hint: String::new(),
            secret: None,
            rights: Rights { principal: "acme".to_owned(), expires_at, ..Rights::default() },
            state,
            created_at: Timestamp::UNIX_EPOCH,
            last_used_at: None,
            revision: Revision(1),
        }
    }

    #[test]
    fn revoked_is_final() {
        let revoked = record(State::Revoked, None);
        for action in [Action::Enable, Action::Disable, Action::Rotate { retire_at: NOW }] {
            assert_eq!(action.apply(&revoked, NOW), Err(LifecycleError::Revoked));
        }
        assert_eq!(Action::Revoke.apply(&revoked, NOW), Ok((State::Revoked, None)));
    }

    #[test]
    fn a_disabled_key_can_be_enabled_and_revoked() {
        let disabled = record(State::Disabled, None);
        assert_eq!(Action::Enable.apply(&disabled, NOW), Ok((State::Active, None)));
        assert_eq!(Action::Disable.apply(&disabled, NOW), Ok((State::Disabled, None)));
        assert_eq!(Action::Revoke.apply(&disabled, NOW), Ok((State::Revoked, None)));
    }

    #[test]
    fn rotation_never_lengthens_the_life_of_the_old_key() {
        let soon = NOW + 1.hour();
        let later = NOW + 2.hours();
        let rotate = Action::Rotate { retire_at: later };
        assert_eq!(
            rotate.apply(&record(State::Active, None), NOW),
            Ok((State::Active, Some(later)))
        );
        assert_eq!(
            rotate.apply(&record(State::Active, Some(soon)), NOW),
            Ok((State::Active, Some(soon)))
        );
    }

    #[test]
    fn only_a_key_that_may_be_used_can_be_rotated() {
        let rotate = Action::Rotate { retire_at: NOW };
        assert_eq!(
            rotate.apply(&record(State::Disabled, None), NOW),
            Err(LifecycleError::Disabled)
        );
        assert_eq!(
            rotate.apply(&record(State::Active, Some(NOW)), NOW),
            Err(LifecycleError::Expired)
        );
    }
}
