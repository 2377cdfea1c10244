//! What may become of a key: the rules that both stores apply inside their
//! transactions.

use jiff::Timestamp;

use super::{KeyId, KeyRecord, NewKey, Rights, State};

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
        /// Whether a key that has a successor gets another one.
        again: bool,
    },
}

/// The key that takes the place of a rotated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Successor {
    /// The new key. Its rights are replaced by those of the old one.
    pub key: NewKey,
    /// How long the new key is valid.
    pub lifetime: Lifetime,
}

/// How long a successor is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until the old key would have expired.
    OfOld,
    /// Until then; absent means for ever.
    Until(Option<Timestamp>),
}

/// An action that the state of the key does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// Two successors are rarely meant.
    #[error("it has a successor already, {0}; rotate that one, or give `--again` to mint another")]
    Rotated(KeyId),
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
            Self::Rotate { again: false, .. } if let Some(successor) = &record.successor => {
                Err(LifecycleError::Rotated(successor.clone()))
            }
            Self::Rotate { retire_at, .. } => {
                Ok((record.state, Some(expires_at.map_or(retire_at, |end| end.min(retire_at)))))
            }
        }
    }
}

impl Successor {
    /// The new key with the rights that the old one has.
    #[must_use]
    pub fn inherit(&self, old: &KeyRecord) -> NewKey {
        let expires_at = match self.lifetime {
            Lifetime::OfOld => old.rights.expires_at,
            Lifetime::Until(end) => end,
        };
        let rights = Rights { expires_at, ..old.rights.clone() };
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
            predecessor: None,
            successor: None,
            revision: Revision(1),
        }
    }

    const fn rotate(retire_at: Timestamp) -> Action {
        Action::Rotate { retire_at, again: false }
    }

    #[test]
    fn revoked_is_final() {
        let revoked = record(State::Revoked, None);
        for action in [Action::Enable, Action::Disable, rotate(NOW)] {
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
        let rotate = rotate(later);
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
        let rotate = rotate(NOW);
        assert_eq!(
            rotate.apply(&record(State::Disabled, None), NOW),
            Err(LifecycleError::Disabled)
        );
        assert_eq!(
            rotate.apply(&record(State::Active, Some(NOW)), NOW),
            Err(LifecycleError::Expired)
        );
    }

    #[test]
    fn a_key_that_has_a_successor_gets_another_only_on_request() {
        let mut rotated = record(State::Active, Some(NOW + 1.hour()));
        let successor: KeyId = "key_2".parse().unwrap();
        rotated.successor = Some(successor.clone());
        assert_eq!(rotate(NOW).apply(&rotated, NOW), Err(LifecycleError::Rotated(successor)));
        let again = Action::Rotate { retire_at: NOW, again: true };
        assert_eq!(again.apply(&rotated, NOW), Ok((State::Active, Some(NOW))));
    }
}
