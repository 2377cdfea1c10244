//! What a service under a steady load needs: PostgreSQL with typical keys behind the
//! proxy, snapshots that it starts warm from, and the requests for its keys.
//!
//! The service has the first core for itself. The loader, PostgreSQL, the proxy and
//! the suite are on the others, so that what is measured of the service is its own.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use keystead::{
    key::{Digest, Environment, KeyId, KeyRing, Minted, NewKey},
    store::{Row, StoreIdentity},
    time::Clock,
};
use tempfile::TempDir;

use crate::{
    Result,
    grpc::block_on,
    keystead::{Program, Service, typical_request},
    network::Network,
    population::{self, Kind},
    postgres::{Postgres, url},
    process::Place,
    snapshot, typical,
};

/// No snapshot while it is measured, and patience with a store on a busy machine.
pub(crate) const PATIENT: [(&str, &str); 3] =
    [("SNAPSHOT__EVERY", "1h"), ("CHECK__TIMEOUT", "5s"), ("STORE__GUARD__QUERY_TIMEOUT", "2s")];

/// Everything but services and loaders.
pub(crate) struct Ground {
    pub(crate) postgres: Postgres,
    pub(crate) network: Network,
    secret: String,
    ring: KeyRing,
    /// The newest change in the store.
    newest: Row,
    pub(crate) folder: TempDir,
    pub(crate) stored: Vec<Key>,
}

/// A key, as PostgreSQL knows it, and the request for it.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) digest: Digest,
    pub(crate) request: Bytes,
}

/// A snapshot of so many keys.
pub(crate) struct Filled {
    path: PathBuf,
    pub(crate) keys: u64,
    /// The requests for all of them, in no order.
    pub(crate) requests: Arc<[Bytes]>,
}

impl Key {
    fn of(minted: &Minted) -> Self {
        let request = typical_request(minted.key.expose()).into();
        Self { id: minted.id.clone(), digest: minted.digest, request }
    }
}

impl Ground {
    /// With so many keys in the store, which is there.
    pub(crate) fn set(place: Place, keys: usize) -> Result<Self> {
        let (secret, ring) = population::secret()?;
        let postgres = Postgres::start(place)?;
        let network = Network::before(postgres.address, place)?;
        Program::with_store(Place::Anywhere, &secret, &url(postgres.address))?.migrate()?;
        let now = Clock::System.wall();
        let (mut stored, mut new) = (Vec::new(), Vec::new());
        for number in 0..keys as u64 {
            let minted = ring.mint(Environment::Live)?;
            new.push(NewKey::minted(&minted, population::rights(Kind::Typical, number, now)));
            stored.push(Key::of(&minted));
        }
        let newest = block_on(postgres.store(new.into_iter()))?;
        let folder = tempfile::tempdir()?;
        Ok(Self { postgres, network, secret, ring, newest, folder, stored })
    }

    /// The requests for the keys in the store of these numbers.
    pub(crate) fn requests(&self, numbers: std::ops::Range<usize>) -> Arc<[Bytes]> {
        self.stored[numbers].iter().map(|key| key.request.clone()).collect()
    }

    /// The requests for a thousand keys of the right form with a wrong tag.
    pub(crate) fn forged(&self) -> Result<Arc<[Bytes]>> {
        let forged = |_| {
            let minted = self.ring.mint(Environment::Live)?;
            Ok(typical_request(&typical::forged(minted.key.expose())).into())
        };
        (0..1_000).map(forged).collect()
    }

    /// A snapshot of so many keys: the first ones of the store, `stored` of them, and
    /// others that only the snapshot has.
    pub(crate) fn fill(&self, stored: usize, keys: u64) -> Result<Filled> {
        let path = self.folder.path().join(format!("snapshot-{keys}"));
        let store = StoreIdentity::of(&url(self.network.address).parse()?, None);
        let setup = snapshot::setup(path.clone(), &self.ring, store);
        let mut all = self.stored[..stored].to_vec();
        while (all.len() as u64) < keys {
            all.push(Key::of(&self.ring.mint(Environment::Live)?));
        }
        if keys > 0 {
            block_on(snapshot::store(setup, all.iter().map(|key| key.digest), self.newest))?;
        }
        Ok(Filled { path, keys, requests: all.into_iter().map(|key| key.request).collect() })
    }

    /// The program, with a copy of a snapshot if it is given one, and with these settings.
    pub(crate) fn program(
        &self,
        place: Place,
        filled: Option<&Filled>,
        settings: &[(&str, &str)],
    ) -> Result<Program> {
        let program = Program::with_store(place, &self.secret, &url(self.network.address))?;
        let program = settings.iter().fold(program, |it, (name, value)| it.with(name, value));
        match filled {
            Some(filled) => program.with_snapshot(&filled.path, filled.keys),
            None => Ok(program),
        }
    }

    /// A service that serves, with all of the snapshot in memory.
    pub(crate) fn serve(
        &self,
        place: Place,
        filled: Option<&Filled>,
        settings: &[(&str, &str)],
    ) -> Result<Service> {
        let service = block_on(self.program(place, filled, settings)?.serve())?;
        filled.map_or(Ok(()), |filled| service.check_held(filled.keys))?;
        Ok(service)
    }
}
