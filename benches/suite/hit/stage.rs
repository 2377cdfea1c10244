//! The servers of a race, and what each is asked.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use envoy_types::ext_authz::v3::pb as stock;
use keystead::transport::pb::{CheckResponse, Freshness};
use prost::Message as _;

use super::interleaved::Contender;
use crate::{
    Result,
    bare::{self, RUNTIMES, SERVICES},
    grpc::{ask, block_on, framed},
    keystead::{CHECK as CHECK_PATH, ENVOY_CHECK, Program, Service, typical_request},
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

/// Patience, so that a machine that is busy elsewhere refuses nothing: it costs a check
/// nothing. And a snapshot, which is off by default.
pub(super) const SETTINGS: [(&str, &str); 3] = [
    ("CHECK__TIMEOUT", "20s"),
    ("STORE__GUARD__QUERY_TIMEOUT", "10s"),
    ("SNAPSHOT__PATH", "snapshot"),
];

/// Entries that are soon old, so that a store that is gone is soon noticed.
const SOON_STALE: [(&str, &str); 4] = [
    ("CACHE__FRESH_FOR", "1s"),
    ("CACHE__FEED_FRESH_FOR", "1s"),
    ("CACHE__REVALIDATE_FOR", "1s"),
    ("SNAPSHOT__PATH", "snapshot"),
];

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

/// All servers, running.
pub(super) struct Stage {
    warm: Served,
    stale: Served,
    bare: Vec<(&'static str, (Process, SocketAddr))>,
}

impl Stage {
    /// Starts them.
    pub(super) fn set() -> Result<Self> {
        let warm = Served::by(Program::new(Place::Served)?, &SETTINGS)?;
        let stale = Served::by(Program::new(Place::Served)?, &SOON_STALE)?;
        let mut all = Self { warm, stale, bare: Vec::new() };
        all.start_bare()?;
        all.lose_store()?;
        Ok(all)
    }

    /// Bare servers answer what Keystead does.
    fn start_bare(&mut self) -> Result<()> {
        let Served { service, key, .. } = &self.warm;
        let address = service.grpc;
        let check = ask(address, CHECK_PATH, typical_request(key))?;
        let envoy = ask(address, ENVOY_CHECK, framed(&typical::envoy_request(key)?))?;
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
        for (names, service, answer) in [
            (BARE_CHECK, SERVICES[0], check.message.to_vec()),
            (NOTHING, SERVICES[1], nothing.encode_to_vec()),
            (SAME, SERVICES[1], envoy.message.to_vec()),
        ] {
            for (name, runtime) in names.into_iter().zip(RUNTIMES) {
                let answer = self.warm.program.write("answer", &answer)?;
                self.bare.push((name, bare::start(service, runtime, &answer, Place::Served)?));
            }
        }
        Ok(())
    }

    /// Takes the file of its store away from the other service, and waits until it
    /// answers without.
    fn lose_store(&self) -> Result<()> {
        let request = typical_request(&self.stale.key);
        let folder = &self.stale.program;
        let asked = || -> Result<_> {
            let answer = ask(self.stale.service.grpc, CHECK_PATH, request.clone())?;
            let evidence = CheckResponse::decode(answer.message)?.evidence;
            Ok(evidence.map(|evidence| evidence.freshness()))
        };
        asked()?.ok_or("a new key is refused")?;
        fs::rename(folder.path("keystead.db"), folder.path("aside.db"))?;
        let deadline = Instant::now() + STALE_WITHIN;
        while asked()? != Some(Freshness::StaleIfError) {
            if Instant::now() > deadline {
                return Err("the store is gone, and no answer is stale".into());
            }
        }
        Ok(())
    }

    /// All that take part, ours and the others by turns.
    pub(super) fn contenders(&self) -> Result<Vec<Contender<'_>>> {
        let Self { warm, stale, .. } = self;
        let check = warm.check(CHECK, &warm.key, GRANTED)?;
        let envoy = warm.envoy(ENVOY)?;
        let mut all = vec![
            warm.check(FORGED, &typical::forged(&warm.key), MALFORMED)?,
            warm.check(ABSENT, "acme-9f1c2b7e-5d0a-4c3b-8e6f-0a1b2c3d4e5f", UNKNOWN)?,
            stale.check(STALE, &stale.key, GRANTED)?,
        ];
        self.add_bare(&mut all, BARE_CHECK, CHECK_PATH, &check.frame);
        self.add_bare(&mut all, NOTHING, ENVOY_CHECK, &envoy.frame);
        self.add_bare(&mut all, SAME, ENVOY_CHECK, &envoy.frame);
        all.extend([check, envoy]);
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

/// Keystead, which serves a key of its own.
pub(super) struct Served {
    program: Program,
    pub(super) key: String,
    service: Service,
}

impl Served {
    pub(super) fn by(program: Program, settings: &[(&str, &str)]) -> Result<Self> {
        let key = program.mint()?;
        let program = settings.iter().fold(program, |it, (name, value)| it.with(name, value));
        let service = block_on(program.serve())?;
        Ok(Self { program, key, service })
    }

    /// A `Check` of a key.
    pub(super) fn check(
        &self,
        name: &'static str,
        key: &str,
        to: Outcome,
    ) -> Result<Contender<'_>> {
        self.contender(name, (CHECK_PATH, "authz"), &typical_request(key), to)
    }

    /// A request of Envoy with the key that it serves.
    pub(super) fn envoy(&self, name: &'static str) -> Result<Contender<'_>> {
        let request = framed(&typical::envoy_request(&self.key)?);
        self.contender(name, (ENVOY_CHECK, "ext_authz"), &request, GRANTED)
    }

    fn contender(
        &self,
        name: &'static str,
        (path, surface): (&'static str, &'static str),
        request: &[u8],
        Outcome { status, code, reason }: Outcome,
    ) -> Result<Contender<'_>> {
        let frame = self.program.write(&name.replace(['/', ' '], "-"), request)?;
        let labels = [("surface", surface), ("code", code), ("reason", reason)];
        let (process, address) = (&self.service.process, self.service.grpc);
        let ours = Some((&self.service, labels));
        Ok(Contender { name, process, ours, address, path, frame, status })
    }
}
