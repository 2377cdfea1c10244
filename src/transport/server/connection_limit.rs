//! The connection limit of a listener, with a fair share per peer when few connections are left.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The last quarter of the permits is for peers that have less than a quarter of all.
const QUARTER: usize = 4;

/// The prefix length that identifies an IPv6 peer: one host usually has all addresses of such a
/// network.
const PEER_BITS: u32 = 64;

/// The connection limit of a listener.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    max: usize,
    in_use: Mutex<InUse>,
}

#[derive(Debug, Default)]
struct InUse {
    total: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// A permit for a connection, released on drop.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    peer: IpAddr,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitReached {
    /// The limit is reached.
    Full,
    /// The peer has its share, and few permits are left.
    Share,
}

impl ConnectionLimit {
    pub(super) fn new(max: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self { max: max.get(), in_use: Mutex::default() })
    }

    pub(super) fn acquire(
        self: &Arc<Self>,
        address: IpAddr,
    ) -> Result<ConnectionPermit, LimitReached> {
        let peer = peer_of(address);
        let mut in_use = self.in_use();
        let own = in_use.by_peer.get(&peer).copied().unwrap_or_default();
        if in_use.total >= self.max {
            return Err(LimitReached::Full);
        }
        if in_use.total >= self.max - self.max / QUARTER && own >= self.max / QUARTER {
            return Err(LimitReached::Share);
        }
        in_use.total += 1;
        in_use.by_peer.insert(peer, own + 1);
        drop(in_use);
        Ok(ConnectionPermit { limit: Arc::clone(self), peer })
    }

    /// Nothing panics while it holds this lock.
    fn in_use(&self) -> MutexGuard<'_, InUse> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut in_use = self.limit.in_use();
        in_use.total -= 1;
        if let Some(own) = in_use.by_peer.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                in_use.by_peer.remove(&self.peer);
            }
        }
    }
}

fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> (128 - PEER_BITS) << (128 - PEER_BITS);
            Ipv6Addr::from(network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquire_all(
        limit: &Arc<ConnectionLimit>,
        peer: &str,
    ) -> (Vec<ConnectionPermit>, LimitReached) {
        let mut all = Vec::new();
        loop {
            match limit.acquire(peer.parse().unwrap()) {
                Ok(permit) => all.push(permit),
                Err(why) => return (all, why),
            }
        }
    }

    #[test]
    fn one_peer_leaves_a_quarter_to_others() {
        let limit = ConnectionLimit::new(NonZeroUsize::new(8).unwrap());
        let (first, why) = acquire_all(&limit, "10.0.0.1");
        assert_eq!((first.len(), why), (6, LimitReached::Share));
        let (mut second, why) = acquire_all(&limit, "10.0.0.2");
        assert_eq!((second.len(), why), (2, LimitReached::Full));
        drop(first);
        let (rest, _) = acquire_all(&limit, "::ffff:10.0.0.2");
        second.extend(rest);
        assert_eq!(second.len(), 6, "the same peer");
        drop(second);
        assert!(limit.in_use().by_peer.is_empty() && limit.in_use().total == 0);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_peer() {
        let limit = ConnectionLimit::new(NonZeroUsize::new(8).unwrap());
        let (first, _) = acquire_all(&limit, "2001:db8::1");
        assert_eq!(limit.acquire("2001:db8::2".parse().unwrap()).unwrap_err(), LimitReached::Share);
        assert!(limit.acquire("2001:db8:0:1::2".parse().unwrap()).is_ok());
        drop(first);
    }

    #[test]
    fn single_permit_goes_to_any_peer() {
        let limit = ConnectionLimit::new(NonZeroUsize::MIN);
        let (one, why) = acquire_all(&limit, "10.0.0.1");
        assert_eq!((one.len(), why), (1, LimitReached::Full));
    }
}
