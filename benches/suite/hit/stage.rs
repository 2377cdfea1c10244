//! The servers of a race, and what each is asked.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use envoy_types::ext_authz::v3::pb as stock;
use keystead::transport::pb::{CheckResponse, Freshness};
use prost::Message as _;

use super::interleaved::Contender;
use crate::{
    Result,
    bare::{self, Runtime, Speaks},
    keystead::{CHECK as CHECK_PATH, ENVOY_CHECK, Service, Site, typical_request},
    load::{ask, framed},
    process::{Place, Process},
    typical,
};

pub(super) const CHECK: &str = "Keystead, warm `Check`";
pub(super) const BARE_CHECK: [&str; 2] =
    ["bare, current-thread runtime", "bare, multi-thread runtime with one worker"];
pub(super) const ENVOY: &str = "Keystead, warm ext_authz";
pub(super) const NOTHING: [&str; 2] =
    ["stock messages, empty OK, current-thread", "stock messages, empty OK, one worker"];
pub(super) const SAME: [&str; 2] = [
    "stock messages, answer of Keystead, current-thread",
    "stock messages, answer of Keystead, one worker",
];
pub(super) const FORGED: &str = "a made-up key: right form, wrong tag";
pub(super) const ABSENT: &str = "an imported key that the store does not have, remembered";
pub(super) const STALE: &str = "a warm key while the store is gone (stale-if-error)";

/// Patience, so that a machine that is busy elsewhere refuses nothing. It costs
/// a check nothing.
pub(super) const PATIENT: &str = "\
[check]
timeout = \"20s\"

[store.guard]
query_timeout = \"10s\"
";

/// Entries that are soon old, so that a store that is gone is soon noticed.
const SOON_STALE: &str = "\
[cache]
fresh_for = \"1s\"
feed_fresh_for = \"1s\"
revalidate_for = \"1s\"
";

/// How long the other service may take until it answers without its store.
const STALE_WITHIN: Duration = Duration::from_secs(30);

/// What a check comes to, and how it is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// The `grpc-status`.
    status: i32,
    code: &'static str,
    reason: &'static str,
}

pub(super) const GRANTED: Outcome = Outcome { status: 0, code: "OK", reason: "" };
const MALFORMED: Outcome =
    Outcome { status: 16, code: "UNAUTHENTICATED", reason: "CREDENTIAL_MALFORMED" };
const UNKNOWN: Outcome = Outcome { status: 16, code: "UNAUTHENTICATED", reason: "KEY_UNKNOWN" };

/// What is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Warm,
    Forged,
    Absent,
}

/// All servers, running.
pub(super) struct Stage {
    site: Site,
    key: String,
    pub(super) warm: Service,
    /// Keys that nobody has asked for.
    pub(super) unasked: Vec<String>,
    stale_site: Site,
    stale_key: String,
    stale: Service,
    bare: Vec<(&'static str, (Process, SocketAddr))>,
}

impl Stage {
    /// Starts them, with so many keys that nobody has asked for.
    pub(super) fn set(unasked: usize) -> Result<Self> {
        let (site, stale_site) = (Site::new()?, Site::new()?);
        let mut keys = site.mint(unasked + 1)?;
        let key = keys.pop().ok_or("no key was minted")?;
        let stale_key = stale_site.mint(1)?.remove(0);
        let warm = site.serve(Place::Served, PATIENT)?;
        let stale = stale_site.serve(Place::Served, SOON_STALE)?;
        let bare = Vec::new();
        let mut all = Self { site, key, warm, unasked: keys, stale_site, stale_key, stale, bare };
        all.start_bare()?;
        all.lose_store()?;
        Ok(all)
    }

    /// Bare servers answer what Keystead does.
    fn start_bare(&mut self) -> Result<()> {
        let address = self.warm.grpc;
        let check = ask(address, CHECK_PATH, self.request(Key::Warm)?)?;
        let envoy = ask(address, ENVOY_CHECK, self.envoy_request(Key::Warm)?)?;
        // What is compared with must be a grant, in full.
        CheckResponse::decode(check.message.clone())?
            .expires_at
            .ok_or("the grant is not typical")?;
        let granted = stock::CheckResponse::decode(envoy.message.clone())?;
        granted.dynamic_metadata.ok_or("Envoy was not granted the request")?;
        let ok = stock::HttpResponse::OkResponse(stock::OkHttpResponse::default());
        let nothing = stock::CheckResponse {
            status: Some(envoy_types::pb::google::rpc::Status::default()),
            http_response: Some(ok),
            ..Default::default()
        };
        for (names, speaks, answer) in [
            (BARE_CHECK, Speaks::Keystead, check.message.to_vec()),
            (NOTHING, Speaks::Envoy, nothing.encode_to_vec()),
            (SAME, Speaks::Envoy, envoy.message.to_vec()),
        ] {
            for (name, runtime) in names.into_iter().zip(Runtime::ALL) {
                let answer = self.site.write("answer", &answer)?;
                self.bare.push((name, bare::start(speaks, runtime, &answer, Place::Served)?));
            }
        }
        Ok(())
    }

    /// Takes the file of its store away from the other service, and waits until it
    /// answers without.
    fn lose_store(&self) -> Result<()> {
        let request = typical_request(&self.stale_key)?;
        let asked = || -> Result<_> {
            let answer = ask(self.stale.grpc, CHECK_PATH, request.clone())?;
            let evidence = CheckResponse::decode(answer.message)?.evidence;
            Ok(evidence.map(|evidence| evidence.freshness()))
        };
        asked()?.ok_or("a new key is refused")?;
        fs::rename(self.stale_site.path("keystead.db"), self.stale_site.path("aside.db"))?;
        let deadline = Instant::now() + STALE_WITHIN;
        while asked()? != Some(Freshness::StaleIfError) {
            if Instant::now() > deadline {
                return Err("the store is gone, and no answer is stale".into());
            }
        }
        Ok(())
    }

    /// A key as a client would present it.
    fn presented(&self, key: Key) -> String {
        match key {
            Key::Warm => self.key.clone(),
            Key::Forged => typical::forged(&self.key),
            Key::Absent => "acme-9f1c2b7e-5d0a-4c3b-8e6f-0a1b2c3d4e5f".to_owned(),
        }
    }

    /// A typical request with it.
    pub(super) fn request(&self, key: Key) -> Result<Vec<u8>> {
        typical_request(&self.presented(key))
    }

    /// The request of Envoy with it.
    pub(super) fn envoy_request(&self, key: Key) -> Result<Vec<u8>> {
        framed(&typical::envoy_request(&self.presented(key))?)
    }

    /// A file for a loader.
    pub(super) fn file(&self, name: &str, frames: impl AsRef<[u8]>) -> Result<PathBuf> {
        self.site.write(name, frames)
    }

    /// All that take part, ours and the others by turns.
    pub(super) fn contenders(&self) -> Result<Vec<Contender<'_>>> {
        let mut all = Vec::new();
        let here = |frame| Ask { service: &self.warm, path: CHECK_PATH, frame };
        let check = self.file("check", self.request(Key::Warm)?)?;
        all.push(here(check.clone()).of(CHECK, "authz", GRANTED));
        self.add_bare(&mut all, BARE_CHECK, CHECK_PATH, &check);
        let request = self.file("envoy", self.envoy_request(Key::Warm)?)?;
        let ask = Ask { service: &self.warm, path: ENVOY_CHECK, frame: request.clone() };
        all.push(ask.of(ENVOY, "ext_authz", GRANTED));
        self.add_bare(&mut all, NOTHING, ENVOY_CHECK, &request);
        self.add_bare(&mut all, SAME, ENVOY_CHECK, &request);
        let forged = self.file("forged", self.request(Key::Forged)?)?;
        all.push(here(forged).of(FORGED, "authz", MALFORMED));
        let absent = self.file("absent", self.request(Key::Absent)?)?;
        all.push(here(absent).of(ABSENT, "authz", UNKNOWN));
        let stale = self.file("stale", typical_request(&self.stale_key)?)?;
        let ask = Ask { service: &self.stale, path: CHECK_PATH, frame: stale };
        all.push(ask.of(STALE, "authz", GRANTED));
        Ok(all)
    }

    fn add_bare<'a>(
        &'a self,
        all: &mut Vec<Contender<'a>>,
        names: [&'static str; 2],
        path: &'static str,
        frame: &Path,
    ) {
        for (name, (process, address)) in self.bare.iter().filter(|(name, _)| names.contains(name))
        {
            let (frame, status) = (frame.to_owned(), GRANTED.status);
            let address = *address;
            all.push(Contender { name, process, ours: None, address, path, frame, status });
        }
    }
}

/// A request to Keystead.
pub(super) struct Ask<'a> {
    pub(super) service: &'a Service,
    pub(super) path: &'static str,
    pub(super) frame: PathBuf,
}

impl<'a> Ask<'a> {
    pub(super) fn of(
        self,
        name: &'static str,
        surface: &'static str,
        outcome: Outcome,
    ) -> Contender<'a> {
        let Self { service, path, frame } = self;
        let Outcome { status, code, reason } = outcome;
        let labels = [("surface", surface), ("code", code), ("reason", reason)];
        let (process, address) = (&service.process, service.grpc);
        Contender { name, process, ours: Some((service, labels)), address, path, frame, status }
    }
}
