//! Who changes keys, for the audit log.

use rustix::process::geteuid;

use crate::{store::Provenance, time::Clock};

/// Where nothing better is known.
const UNKNOWN: &str = "unknown";

/// A change that is made now, on this host.
pub(super) fn of(actor: String) -> Provenance {
    let origin = whoami::hostname().unwrap_or_else(|_| UNKNOWN.to_owned());
    Provenance { actor, origin: printable(&origin), at: Clock::System.wall() }
}

/// A change that is made now by whoever runs the command: `cli:<user>`.
pub(super) fn of_user() -> Provenance {
    // Many a container has a user without a name.
    let user = whoami::username().unwrap_or_else(|_| format!("uid-{}", geteuid().as_raw()));
    of(format!("cli:{}", printable(&user)))
}

/// Names come from the machine, and may hold what no table shows.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_actor_is_a_user_and_the_origin_a_host() {
        let by = of_user();
        assert!(by.actor.len() > "cli:".len() && by.actor.starts_with("cli:"), "{}", by.actor);
        assert!(!by.origin.is_empty());
    }

    #[test]
    fn a_name_never_breaks_a_line() {
        assert_eq!(printable("a\nb\0c é"), "a?b?c é");
    }
}
