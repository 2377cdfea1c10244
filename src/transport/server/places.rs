//! Places for connections: so many in all, and a share for each peer when they run out.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// When places run out, the last quarter of them is for peers that have less than a
/// quarter of all.
const QUARTER: usize = 4;

/// How many bits of an IPv6 address are those of a peer: one has all addresses of such a
/// network as a rule.
const PEER_BITS: u32 = 64;

/// The places of a listener.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    peer: IpAddr,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All are taken.
    Full,
    /// The peer has its share, and few are left.
    Share,
}

impl Places {
    pub(super) fn new(max: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self { max: max.get(), taken: Mutex::default() })
    }

    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, NoPlace> {
        let peer = peer_of(address);
        let mut taken = self.taken();
        let own = taken.by.get(&peer).copied().unwrap_or_default();
        if taken.all >= self.max {
            return Err(NoPlace::Full);
        }
        if taken.all >= self.max - self.max / QUARTER && own >= self.max / QUARTER {
            return Err(NoPlace::Share);
        }
        taken.all += 1;
        taken.by.insert(peer, own + 1);
        drop(taken);
        Ok(Place { places: Arc::clone(self), peer })
    }

    /// Nothing panics while it holds this lock.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(own) = taken.by.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.peer);
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

    fn take_all(places: &Arc<Places>, peer: &str) -> (Vec<Place>, NoPlace) {
        let mut all = Vec::new();
        loop {
            match places.take(peer.parse().unwrap()) {
                Ok(place) => all.push(place),
                Err(why) => return (all, why),
            }
        }
    }

    #[test]
    fn one_peer_leaves_a_quarter_to_others() {
        let places = Places::new(NonZeroUsize::new(8).unwrap());
        let (first, why) = take_all(&places, "10.0.0.1");
        assert_eq!((first.len(), why), (6, NoPlace::Share));
        let (mut second, why) = take_all(&places, "10.0.0.2");
        assert_eq!((second.len(), why), (2, NoPlace::Full));
        drop(first);
        let (rest, _) = take_all(&places, "::ffff:10.0.0.2");
        second.extend(rest);
        assert_eq!(second.len(), 6, "the same peer");
        drop(second);
        assert!(places.taken().by.is_empty() && places.taken().all == 0);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_peer() {
        let places = Places::new(NonZeroUsize::new(8).unwrap());
        let (first, _) = take_all(&places, "2001:db8::1");
        assert_eq!(places.take("2001:db8::2".parse().unwrap()).unwrap_err(), NoPlace::Share);
        assert!(places.take("2001:db8:0:1::2".parse().unwrap()).is_ok());
        drop(first);
    }

    #[test]
    fn the_only_place_is_anybodys() {
        let places = Places::new(NonZeroUsize::MIN);
        let (one, why) = take_all(&places, "10.0.0.1");
        assert_eq!((one.len(), why), (1, NoPlace::Full));
    }
}
