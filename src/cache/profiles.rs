//! The profiles of late: of keys with the same rights, one copy is kept.

use quick_cache::{Weighter, sync::Cache};

use crate::key::{CompactKey, PreparedFor, Profile};

/// How many profiles are remembered, about. A store has a few of them, or nearly as
/// many as keys, where remembering more would not help either.
const TYPICAL: usize = 4096;

/// How many bytes they may take.
const MAX_BYTES: u64 = 4 << 20;

/// The profiles of late. One that is forgotten goes on where it is in use; whoever
/// has the same content later begins a second copy.
#[derive(Debug)]
pub(super) struct Profiles(Cache<Profile, Profile, ByBytes>);

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Profile, Profile> for ByBytes {
    /// With what surfaces may prepare from it, and its place here.
    fn weight(&self, _: &Profile, profile: &Profile) -> u64 {
        let each = profile.packed().len() * (1 + PreparedFor::ALL.len());
        u64::try_from(each + 128).unwrap_or(u64::MAX)
    }
}

impl Profiles {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(TYPICAL, MAX_BYTES, ByBytes))
    }

    /// The copy that others share, of which this may become the first.
    pub(super) fn shared(&self, profile: &Profile) -> Profile {
        self.0.get(profile.packed()).unwrap_or_else(|| {
            self.0.insert(profile.clone(), profile.clone());
            profile.clone()
        })
    }

    /// The same key with the profile that others share.
    pub(super) fn sharing(&self, known: CompactKey) -> CompactKey {
        let profile = self.shared(known.profile());
        known.with_profile(profile)
    }
}
