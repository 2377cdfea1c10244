//! `keystead serve`

mod welcome;

use std::{panic, process::ExitCode, time::Duration};

use clap::Args;
use futures::future::select_all;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::timeout,
};

use self::welcome::Addresses;
use super::{Failure, OTHER, write_out};
use crate::{
    app::{App, Listeners, Role, Stop, open_store},
    config::Config,
    key::KeyId,
    store::{AnyStore, sqlite::SqliteStore},
    telemetry::init_log,
    time::Clock,
};

/// How long closing the embedded store may take: another process may be reading it.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// How long the start waits for the reader of stdout.
const SHOW_LIMIT: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  keystead serve
  keystead serve --listen 0.0.0.0:50051 --store sqlite:/var/lib/keystead/keystead.db
  keystead serve --config /etc/keystead.toml";

/// Run the service until SIGTERM, SIGINT or SIGQUIT.
///
/// With no configuration it serves on loopback and keeps its keys in
/// ./keystead.db, with the secret ./keystead.secret beside it. A new store
/// of that kind gets a key, which is printed once.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    /// Serve gRPC on this address [default: 127.0.0.1:50051].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Serve metrics, probes and status on this address [default: 127.0.0.1:9464].
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

impl ServeArgs {
    pub(super) fn overrides(&self) -> Vec<(&'static str, String)> {
        let listen = self.listen.clone().map(|address| ("listen.grpc", address));
        let admin = self.admin.clone().map(|address| ("listen.admin", address));
        listen.into_iter().chain(admin).collect()
    }
}

pub(super) async fn run(config: Config) -> Result<ExitCode, Failure> {
    let log = init_log(&config.log)?;
    log_panics();
    keep_memory_private();
    let code = serve(&config).await.unwrap_or_else(|Failure { message, code }| {
        // Whoever waits for the reader of stderr may wait for ever.
        log.line(format_args!("keystead: {message}"));
        code.into()
    });
    log.flush();
    Ok(code)
}

async fn serve(config: &Config) -> Result<ExitCode, Failure> {
    let open_files = raise_open_files();
    let mut signals = Signals::listen()?;
    let listeners = Listeners::bind(config, open_files).await?;
    let max_connections = listeners.data_connections();
    let opened = open_store(config).await?;
    let embedded = match &opened.store {
        AnyStore::Sqlite(store) => Some(store.clone()),
        AnyStore::Postgres(_) => None,
    };
    let app = App::build(config, listeners, opened, Clock::System).await?;
    let [grpc, admin, control, forward_auth] = Role::ALL.map(|role| app.address(role));
    if let (Some(grpc), Some(admin)) = (grpc, admin)
        && let Some(first) = welcome::first_key(config).await?
    {
        let auth = forward_auth.unwrap_or(admin);
        show(first.welcome(Addresses { grpc, admin, auth }), &first.key.id).await;
    }
    let [grpc, admin, control, forward_auth] =
        [grpc, admin, control, forward_auth].map(|address| address.map(tracing::field::display));
    let store = &config.store.url;
    let open_files = in_words(open_files);
    tracing::info!(
        grpc, admin, control, forward_auth, %store, open_files, max_connections, "serving"
    );

    let (stop, told) = tokio::sync::oneshot::channel();
    let second_signal = async {
        // The receiver lives as long as the app runs.
        let _ = stop.send(signals.next().await);
        signals.next().await;
    };
    // Whoever tells nothing any more has gone, and so do we.
    let first_signal = async { told.await.unwrap_or(Stop::AtOnce) };
    tokio::select! {
        () = app.run(first_signal) => {
            close(embedded).await;
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = second_signal => {
            tracing::warn!("ended at once by a second signal");
            Ok(OTHER.into())
        }
    }
}

/// Prints the first key. Nobody may be there to read it, for which no check waits.
async fn show(welcome: String, key: &KeyId) {
    let written = timeout(SHOW_LIMIT, spawn_blocking(|| write_out(welcome))).await;
    let why = match written {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) | Err(_) => "nobody reads it".to_owned(),
    };
    tracing::warn!(
        %key,
        "the first key could not be printed to stdout ({why}): revoke it, and make one with \
         `keystead keys create`"
    );
}

/// Closes the embedded store, if that is what is served, so that its file holds all.
async fn close(embedded: Option<SqliteStore>) {
    let Some(store) = embedded else { return };
    let why = match timeout(CLOSE_LIMIT, store.close()).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(late) => late.to_string(),
    };
    tracing::warn!(
        why,
        "the embedded store was not closed: what is beside its file, `-wal`, is part of it"
    );
}

/// Raises the soft limit of open files to the hard limit: a login has 1,024 as a rule,
/// which idle connections would fill, and then neither a probe nor the store finds
/// one. The soft limit is that low for the sake of `select`, which is not used here.
/// Returns what it is now; `None` is no limit.
fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        let (limit, hard) = (in_words(current), in_words(maximum));
        tracing::warn!(%error, limit, hard, "cannot raise the limit of open files");
        return current;
    }
    maximum
}

fn in_words(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

/// A panic is a bug: it goes to the log like everything else that an operator
/// must act on, and never to a caller.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or_default();
        tracing::error!(place, message, "a bug: please report it");
    }));
}

/// Presented keys and the secrets are in memory: no core dump may hold them, and
/// nobody but root may look at them.
fn keep_memory_private() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a core dump of this process would hold keys and secrets");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// They would end the process without a drain. What they ask of other programs
    /// is not needed here: nothing is to be read anew, and no file of the log to be
    /// opened anew. A file that has reached its limit fails to be written instead.
    ignored: Vec<(&'static str, Signal)>,
}

/// See [`Signals::ignored`].
const IGNORED: [(&str, rustix::process::Signal); 9] = {
    use rustix::process::Signal as Number;
    [
        ("SIGHUP", Number::HUP),
        ("SIGUSR1", Number::USR1),
        ("SIGUSR2", Number::USR2),
        ("SIGALRM", Number::ALARM),
        ("SIGVTALRM", Number::VTALARM),
        ("SIGPROF", Number::PROF),
        ("SIGIO", Number::IO),
        ("SIGPWR", Number::POWER),
        ("SIGXFSZ", Number::XFSZ),
    ]
};

impl Signals {
    /// SIGPIPE is ignored already: the standard library sees to it.
    fn listen() -> Result<Self, Failure> {
        let caught = |(name, number): (_, rustix::process::Signal)| {
            signal(SignalKind::from_raw(number.as_raw())).map(|signal| (name, signal))
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            ignored: IGNORED.into_iter().map(caught).collect::<Result<_, _>>()?,
        })
    }

    /// The next that ends the process.
    async fn next(&mut self) -> Stop {
        let Self { terminate, interrupt, quit, ignored } = self;
        loop {
            let ignored = ignored.iter_mut().map(|(name, signal)| {
                let name = *name;
                Box::pin(async move {
                    signal.recv().await;
                    name
                })
            });
            let (signal, stop) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", Stop::AfterDelay),
                _ = interrupt.recv() => ("SIGINT", Stop::AtOnce),
                _ = quit.recv() => ("SIGQUIT", Stop::AtOnce),
                (signal, ..) = select_all(ignored) => {
                    tracing::info!(signal, "signal ignored; SIGTERM stops the service");
                    continue;
                }
            };
            tracing::info!("stopping on {signal}");
            return stop;
        }
    }
}
