//! Interns recent profiles: keys with the same rights share one copy.

use quick_cache::{Weighter, sync::Cache};

use crate::key::{CompactKey, PreparedFor, Profile};

/// Estimated number of profiles. A store has either a few, or nearly as many as keys,
/// where caching more would not help.
const TYPICAL: usize = 4096;

/// Maximum size in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Recent profiles. An evicted profile stays valid where it is in use; a later key
/// with the same content starts a second copy.
#[derive(Debug)]
pub(super) struct Profiles(Cache<Profile, Profile, ByBytes>);

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Profile, Profile> for ByBytes {
    /// Includes what surfaces may prepare from the profile, and its slot here.
    fn weight(&self, _: &Profile, profile: &Profile) -> u64 {
        let each = profile.packed().len() * (1 + PreparedFor::ALL.len());
        u64::try_from(each + 128).unwrap_or(u64::MAX)
    }
}

impl Profiles {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(TYPICAL, MAX_BYTES, ByBytes))
    }

    /// Returns the shared copy; stores this one if it is the first.
    pub(super) fn shared(&self, profile: &Profile) -> Profile {
        self.0.get(profile.packed()).unwrap_or_else(|| {
            self.0.insert(profile.clone(), profile.clone());
            profile.clone()
        })
    }

    /// Returns the key with the shared copy of its profile.
    pub(super) fn sharing(&self, known: CompactKey) -> CompactKey {
        let profile = self.shared(known.profile());
        known.with_profile(profile)
    }
}
