//! Who may read a file that holds secrets or keys.
//!
//! As `ssh` has it: nobody but its owner, and root. A group of this process may too:
//! Kubernetes gives mounted secrets, and the files of a volume, to the group in
//! `fsGroup`.

use std::{fs::Metadata, os::unix::fs::MetadataExt, path::Path};

use rustix::process::{Gid, getegid, geteuid, getgroups};

/// What a group of this process may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Read it, if it is handed to this process from elsewhere.
    Reads,
    /// Write it too, if it is on a volume of this process: Kubernetes gives all
    /// files there to the group, with the right to write, whenever it mounts one.
    Writes,
}

/// Others have rights to a file. Says what to run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("others may use it (mode {mode:o}); run `{remedy}`")]
pub struct NotPrivate {
    mode: u32,
    remedy: String,
}

/// The rights of others.
const OTHERS: u32 = 0o007;
/// The rights of the group.
const GROUP: u32 = 0o070;
/// Its right to write.
const GROUP_WRITES: u32 = 0o020;

/// Whose rights this process has.
struct Rights {
    user: u32,
    groups: Vec<u32>,
}

/// What to do about a file.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    /// `chmod 600`
    OwnerAlone,
    /// `chmod 640`, where this process is not the owner.
    OwnerAndGroup,
    /// `chown` and `chmod 600`, where it is neither.
    Ours,
}

/// Fails when others than the owner, root and a group of this process have rights to
/// a file. `file` is what was found at `path`, at the end of all links. A pipe, as
/// a shell makes it, is nobody else's.
pub fn private(path: &Path, file: &Metadata, group: Group) -> Result<(), NotPrivate> {
    let rights = Rights::own();
    let mode = file.mode() & 0o777;
    let found = rights.remedy(mode, file.uid(), file.gid(), group).filter(|_| file.is_file());
    let (path, user) = (path.display(), rights.user);
    let remedy = match found {
        None => return Ok(()),
        Some(Remedy::OwnerAlone) => format!("chmod 600 {path}"),
        Some(Remedy::OwnerAndGroup) => format!("chmod 640 {path}"),
        Some(Remedy::Ours) => format!("chown {user} {path} && chmod 600 {path}"),
    };
    Err(NotPrivate { mode, remedy })
}

impl Rights {
    fn own() -> Self {
        let more = getgroups().unwrap_or_default();
        let groups = more.into_iter().chain([getegid()]).map(Gid::as_raw);
        Self { user: geteuid().as_raw(), groups: groups.collect() }
    }

    /// What to do, if others have rights to a file of that mode.
    fn remedy(&self, mode: u32, owner: u32, group: u32, may: Group) -> Option<Remedy> {
        // To whom another user has given a file is not root's to judge.
        let root_visits = self.user == 0 && owner != 0;
        let is_ours = root_visits || self.groups.contains(&group);
        let of_group = match (is_ours, may) {
            (false, _) => GROUP,
            (true, Group::Reads) => GROUP_WRITES,
            (true, Group::Writes) => 0,
        };
        let remedy = match (owner == self.user, is_ours) {
            (true, _) => Remedy::OwnerAlone,
            (false, true) => Remedy::OwnerAndGroup,
            (false, false) => Remedy::Ours,
        };
        (mode & (OTHERS | of_group) != 0).then_some(remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u32 = 1000;
    const ROOT: u32 = 0;

    /// What to do where the process is of group 1000 and 2000.
    fn remedy(mode: u32, owner: u32, group: u32, may: Group) -> Option<Remedy> {
        Rights { user: US, groups: vec![1000, 2000] }.remedy(mode, owner, group, may)
    }

    #[test]
    fn owner_root_and_a_group_of_the_process_may_read_it_and_nobody_else() {
        for may in [Group::Reads, Group::Writes] {
            for owner in [US, ROOT] {
                for mode in [0o400, 0o600, 0o700] {
                    assert_eq!(remedy(mode, owner, 3000, may), None, "{mode:o}");
                }
                for (mode, group) in [(0o440, 1000), (0o640, 2000)] {
                    assert_eq!(remedy(mode, owner, group, may), None, "{mode:o} {group}");
                    assert!(remedy(mode, owner, 3000, may).is_some(), "{mode:o}");
                }
                for mode in [0o604, 0o606, 0o602, 0o601, 0o644, 0o666, 0o664] {
                    assert!(remedy(mode, owner, 2000, may).is_some(), "{mode:o}");
                    assert!(remedy(mode, owner, 3000, may).is_some(), "{mode:o}");
                }
            }
        }
    }

    #[test]
    fn group_may_write_what_is_on_a_volume_of_the_process() {
        assert_eq!(remedy(0o660, US, 2000, Group::Writes), None);
        assert!(remedy(0o660, US, 2000, Group::Reads).is_some());
        assert!(remedy(0o660, US, 3000, Group::Writes).is_some());
    }

    #[test]
    fn remedy_does_not_shut_the_process_out() {
        assert_eq!(remedy(0o644, US, 2000, Group::Reads), Some(Remedy::OwnerAlone));
        assert_eq!(remedy(0o644, ROOT, 2000, Group::Reads), Some(Remedy::OwnerAndGroup));
        assert_eq!(remedy(0o644, ROOT, 3000, Group::Reads), Some(Remedy::Ours));
    }

    #[test]
    fn root_leaves_the_group_to_another_owner_and_judges_others() {
        let remedy = |mode, owner| {
            Rights { user: ROOT, groups: vec![0] }.remedy(mode, owner, 3000, Group::Reads)
        };
        assert_eq!(remedy(0o640, US), None);
        assert_eq!(remedy(0o640, ROOT), Some(Remedy::OwnerAlone));
        assert_eq!(remedy(0o644, US), Some(Remedy::OwnerAndGroup));
    }
}
